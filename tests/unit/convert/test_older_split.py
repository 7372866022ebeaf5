"""Split of opset 18 below it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from repo_builder.convert import onnx_graph
from repo_builder.errors import ConversionError


def _model(size: int | str, parts: int, *, axis: int = -1, sizes: list[int] | None = None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in range(parts)]
    names = [o.name for o in outputs]
    if sizes:
        node = helper.make_node("Split", ["x", "sizes"], names, axis=axis)
    else:
        node = helper.make_node("Split", ["x"], names, axis=axis, num_outputs=parts)
    weights = [numpy_helper.from_array(np.array(sizes, np.int64), "sizes")] if sizes else []
    graph = helper.make_graph([node], "g", [x], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize(("size", "parts"), [(2, 2), (6, 3), (7, 3)])
def test_parts_of_a_known_size_are_the_same_below_opset_18(size: int, parts: int) -> None:
    model = _model(size, parts)
    lowered = onnx_graph.at_opset(model, 17)
    onnx.checker.check_model(lowered, full_check=True)
    assert onnx_graph.opset_of(lowered) == 17
    x = np.random.default_rng(0).standard_normal((3, size)).astype(np.float32)
    for found, wanted in zip(_run(lowered, x), _run(model, x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_parts_of_given_sizes_are_the_same() -> None:
    model = _model(5, 2, sizes=[1, 4])
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    np.testing.assert_array_equal(_run(onnx_graph.at_opset(model, 17), x)[1], x[:, 1:])


def test_an_axis_of_unknown_size_is_refused_with_onnx_reason() -> None:
    with pytest.raises(ConversionError, match="onnx cannot convert opset 20 to 17"):
        onnx_graph.at_opset(_model("n", 2), 17)
