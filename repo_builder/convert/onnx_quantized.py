"""Explicit quantisation: QuantizeLinear and DequantizeLinear around what TensorRT computes in int8 or fp8.

ONNX Runtime's static quantiser writes them where TensorRT wants them: at the inputs of Conv, ConvTranspose, Gemm and
MatMul only, never at their outputs; symmetric, weights per channel, biases in float. Products of two activations
(attention) stay in float: they lose most, and TensorRT fuses them in half precision.

fp8 stands at the same places with the same measured ranges, per tensor, the largest value at 448 (float8e4m3fn).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.convert import onnx_graph
from repo_builder.convert.cases import CheckedCase
from repo_builder.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FEW_ROWS = 32
"""Below so many rows of samples, ranges are a guess; the loss says so."""
_INT8_LARGEST, _FP8_LARGEST = 127.0, 448.0


def quantize(path: Path, out: Path, cases: Sequence[CheckedCase], *, fp8: bool) -> None:
    """Write ``out``, the model of ``path`` (nodes named) with Q/DQ nodes, ranges taken from the cases.

    Args:
        fp8: float8e4m3fn instead of int8; the model has opset 19 or newer.

    Raises:
        ConversionError: there is nothing to quantise, or ONNX Runtime fails.
    """
    import onnx
    from onnxruntime import quantization as ort

    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": list(OPERATORS),
    }
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        ort.quantize_static(
            str(path),
            str(out),
            _Reader(cases),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=not fp8,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=_excluded(path),
            calibrate_method=ort.CalibrationMethod.MinMax,
            use_external_data_format=any(path.parent.glob(f"{path.name}.data")),
            extra_options=options,
        )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(
            f"ONNX Runtime cannot quantise {path.name}: {lines[0]}", mend="keep the node that it names (keep_fp32)"
        ) from error
    finally:
        logging.getLogger().setLevel(level)
    model = onnx.load(str(out))
    release(model, _bystanders(model))
    if fp8:
        to_fp8(model)
    onnx_graph.save(model, out)


def release(model: ModelProto, kept: Collection[str]) -> None:
    """Take the Q/DQ nodes away from the inputs of the named nodes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name not in kept:
            continue
        for position, name in enumerate(node.input):
            if name in makers and makers[name].op_type == "DequantizeLinear":
                node.input[position] = makers[makers[name].input[0]].input[0]
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
        nodes = [n for n in model.graph.node if n.op_type != operator or n.output[0] in read]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    graphs = list(onnx_graph.subgraphs(model.graph))
    read = {name for graph in graphs for node in graph.node for name in node.input}
    read |= {value.name for graph in graphs for value in graph.output}
    weights = [t for t in model.graph.initializer if t.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def _bystanders(model: ModelProto) -> set[str]:
    """Nodes that are not quantised themselves, yet read what was quantised for another.

    A residual connection would carry the rounding through the whole network. An Add that takes the answer of a Conv
    keeps it: TensorRT computes both as one int8 kernel.
    """
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    found = set()
    for node in model.graph.node:
        joined = node.op_type == "Add" and any(makers.get(name) == "Conv" for name in node.input)
        if node.op_type not in (*OPERATORS, "QuantizeLinear", "DequantizeLinear") and not joined:
            found.add(node.name)
    return found | {n.name for n in model.graph.node if n.op_type in OPERATORS} - set(quantized(model))


def quantized(model: ModelProto) -> list[str]:
    """Names of the nodes whose inputs are dequantised."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [n.name for n in model.graph.node if n.op_type in OPERATORS and made.issuperset(n.input[:2])]


def candidates(model: ModelProto) -> dict[str, str]:
    """Name -> operator of the nodes that can be quantised: one input at least is a weight."""
    weights = {t.name for t in model.graph.initializer}
    weights |= {name for n in model.graph.node if n.op_type == "Constant" for name in n.output}
    return {n.name: n.op_type for n in model.graph.node if n.op_type in OPERATORS and weights.intersection(n.input[:2])}


def to_fp8(model: ModelProto) -> None:
    """Turn symmetric int8 Q/DQ nodes into float8e4m3fn with the same ranges."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    weights = {t.name: t for t in model.graph.initializer}
    scales, zeros = set(), set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.add(node.input[1])
            zeros.add(node.input[2])
    for name in scales:
        values = numpy_helper.to_array(weights[name]) * np.float32(_INT8_LARGEST / _FP8_LARGEST)
        weights[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    for name in zeros:
        dims = list(weights[name].dims)
        count = int(np.prod(dims)) if dims else 1
        made = TensorProto(name=name, data_type=TensorProto.FLOAT8E4M3FN, dims=dims, raw_data=bytes(count))
        weights[name].CopyFrom(made)


def _excluded(path: Path) -> list[str]:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    fit = candidates(model)
    return [n.name for n in model.graph.node if n.op_type in OPERATORS and n.name not in fit]


class _Reader:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, cases: Sequence[CheckedCase]) -> None:
        self.cases: Iterator[CheckedCase] = iter(cases)

    def get_next(self) -> dict[str, Any] | None:
        case = next(self.cases, None)
        return dict(case.inputs) if case else None
