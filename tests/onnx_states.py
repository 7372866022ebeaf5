"""ONNX files in the states that people have them: old and new opsets, fp16, quantized, external data, odd names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import models

OPSETS = {7: 3, 9: 4, 11: 6, 13: 7, 17: 8, 21: 10, 23: 11}
"""Opset -> the IR version of its time."""
FLOAT, HALF, INT8, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8
_ODD = {"a/slash:0": "out/y:0", 'a "quoted" \\ name': "it's y", "two\nlines": "y\n", "größe 入力": "出力"}
ODD = dict(zip(("slashes", "quotes", "newlines", "unicode"), _ODD.items(), strict=True))
"""What is odd -> names of the input and of the output."""


def _weights(**arrays: Any) -> list[Any]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def _save(path: Path, model: Any) -> Path:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def of_opset(path: Path, opset: int) -> Path:
    """Convolution, pooling, normalization and a softmax in the words of the opset; weights are inputs below IR 4.

    Dropout's ratio, BatchNormalization's outputs, Squeeze's, Clip's and ReduceMean's attributes changed on the way.
    """
    new = opset >= 13
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Clip", ["n", "low", "high"], ["r"])
        if opset >= 11
        else helper.make_node("Clip", ["n"], ["r"], min=0.0, max=6.0),
        helper.make_node("Dropout", ["r"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Squeeze", ["g", "axes"], ["q"])
        if new
        else helper.make_node("Squeeze", ["g"], ["q"], axes=[2, 3]),
        helper.make_node("Softmax", ["q"], ["y"], axis=1),
    ]
    tensors = _weights(w=_random(4, 3, 3, 3), s=_random(4), b=_random(4), m=_random(4), v=np.abs(_random(4)) + 0.5)
    tensors += _weights(low=np.float32(0), high=np.float32(6)) if opset >= 11 else []
    tensors += _weights(axes=np.array([2, 3])) if new else []
    inputs: list[Any] = [("x", FLOAT, ["N", 3, 8, 8])]
    if OPSETS[opset] < 4:
        inputs += [(t.name, t.data_type, list(t.dims)) for t in tensors]
    model = models.onnx_model(inputs, [("y", FLOAT, ["N", 4])], nodes, tensors, opset=opset, ir_version=OPSETS[opset])
    return _save(path, model)


def half(path: Path) -> Path:
    """``y = softmax(x @ w)`` in fp16 throughout, inputs and outputs included."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=-1)]
    return _save(
        path,
        models.onnx_model(
            [("x", HALF, ["batch", 4])],
            [("y", HALF, ["batch", 3])],
            nodes,
            _weights(w=_random(4, 3).astype(np.float16)),
        ),
    )


def qdq(path: Path) -> Path:
    """A matrix product between QuantizeLinear and DequantizeLinear, weights int8 by channel."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    w = np.clip(np.round(_random(4, 3) * 40), -127, 127).astype(np.int8)
    tensors = _weights(
        xs=np.float32(0.03), xz=np.int8(3), w=w, ws=np.float32([0.01, 0.02, 0.03]), wz=np.zeros(3, np.int8)
    )
    return _save(path, models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 3])], nodes, tensors))


def qlinear(path: Path) -> Path:
    """QLinearMatMul, uint8 in and out."""
    nodes = [helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])]
    w = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    scales: dict[str, Any] = {"xs": np.float32(0.5), "ws": np.float32(0.1), "ys": np.float32(0.7)}
    zeros: dict[str, Any] = {"xz": np.uint8(1), "wz": np.uint8(100), "yz": np.uint8(128)}
    model = models.onnx_model(
        [("x", UINT8, ["batch", 4])], [("y", UINT8, ["batch", 3])], nodes, _weights(w=w, **scales, **zeros)
    )
    return _save(path, model)


def external(path: Path, *, one_file: bool) -> Path:
    """The weights in ``weights/all.bin``, or one file each in the same folder as the graph."""
    models.linear_onnx(path)
    model = onnx.load(str(path))
    if one_file:
        (path.parent / "weights").mkdir()
        onnx.save(model, str(path), save_as_external_data=True, location="weights/all.bin", size_threshold=0)
    else:
        onnx.save(model, str(path), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    return path


def colliding_weights(path: Path) -> Path:
    """The weights in files that are called as the served graph, and with a newline."""
    external(path, one_file=False)
    model = onnx.load(str(path), load_external_data=False)
    for tensor, name in zip(model.graph.initializer, ("model.onnx", "two\nlines"), strict=True):
        (entry,) = (entry for entry in tensor.external_data if entry.key == "location")
        (path.parent / entry.value).rename(path.parent / name)
        entry.value = name
    path.write_bytes(model.SerializeToString())
    return path


def function(path: Path) -> Path:
    """``y = x + x`` in a function of the model's own."""
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    twice = helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="local")]
    model = models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])], nodes)
    model.functions.append(twice)
    model.opset_import.add(domain="local", version=1)
    return _save(path, model)


def int4(path: Path) -> Path:
    """``y = x @ w``, the weights two to a byte."""
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])]
    tensors = [helper.make_tensor("w", TensorProto.INT4, [4, 2], np.array([1, -2, 3, -4, 5, 6, 7, -8]))]
    tensors += _weights(s=np.float32(0.5))
    inputs, outputs = [("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 2])]
    return _save(path, models.onnx_model(inputs, outputs, nodes, tensors, opset=21, ir_version=10))


def unsorted(path: Path) -> Path:
    """``y = relu(-x)``, the last node first, which onnx.checker refuses and ONNX Runtime runs."""
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Neg", ["x"], ["h"])]
    onnx.save(models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])], nodes), str(path))
    return path


def optional_input(path: Path) -> Path:
    """An input that may be left out: Triton has none."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["batch", 4]))
    model = models.onnx_model(
        [], [("y", FLOAT, ["batch", 4])], [helper.make_node("OptionalGetElement", ["x"], ["y"])], opset=18, ir_version=8
    )
    model.graph.input.append(helper.make_value_info("x", kind))
    onnx.save(model, str(path))
    return path


def wrong_shape(path: Path) -> Path:
    """An output that is declared with another size than it has."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    onnx.save(models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 5])], nodes), str(path))
    return path


def unused_input(path: Path) -> Path:
    """``y = x + 1``; the input ``u`` is read by nothing."""
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    inputs: list[Any] = [("u", TensorProto.INT64, ["batch", 2]), ("x", FLOAT, ["batch", 4])]
    return _save(path, models.onnx_model(inputs, [("y", FLOAT, ["batch", 4])], nodes, _weights(one=np.float32(1))))


def odd_names(path: Path, told: str, names: Mapping[str, tuple[str, str]] = ODD) -> Path:
    x, y = names[told]
    nodes = [helper.make_node("Mul", [x, "w"], [y])]
    return _save(
        path, models.onnx_model([(x, FLOAT, ["batch", 4])], [(y, FLOAT, ["batch", 4])], nodes, _weights(w=_random(4)))
    )


def wrong_stamp(path: Path) -> Path:
    """Nodes of opset 13 with the stamp 21, as MXNet 1.9 exports them."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0, name="mean0")]
    model = models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch"])], nodes, opset=21, ir_version=10)
    onnx.save(model, str(path))
    return path


def giant_dim(path: Path) -> Path:
    """A weight that declares 2**62 values and has none."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[1 << 62], raw_data=b"")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = models.onnx_model([("x", FLOAT, ["batch", 1])], [("y", FLOAT, ["batch", "n"])], nodes, [tensor])
    onnx.save(model, str(path))
    return path


def giant_input(path: Path) -> Path:
    """An input that declares 2**40 values in each row."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])]
    model = models.onnx_model([("x", FLOAT, ["batch", 1 << 40])], [("y", FLOAT, ["batch", 1])], nodes)
    onnx.save(model, str(path))
    return path
