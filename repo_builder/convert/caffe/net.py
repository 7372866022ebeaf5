"""A whole Caffe net as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repo_builder.convert import onnx_graph
from repo_builder.convert.caffe import layout, normalizations, pointwise, windows
from repo_builder.convert.caffe.graph import Graph, Step, Writer
from repo_builder.formats.caffe_net import Net
from repo_builder.formats.caffe_rules import Shapes
from repo_builder.tensors import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 13, 7
"""What is written: the lowest opset whose Softmax works along one axis, as Caffe's does, and its IR version."""

WRITERS: Mapping[str, Writer] = {
    **windows.WRITERS,
    **pointwise.WRITERS,
    **normalizations.WRITERS,
    **layout.WRITERS,
}


def model(
    net: Net,
    shapes: Sequence[tuple[Shapes, Shapes]],
    weights: Sequence[Sequence[np.ndarray[Any, Any]]],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> ModelProto:
    """The ONNX model.

    Args:
        shapes: of each layer's bottoms and tops; -1 for a size that follows the batch.
        weights: of each layer.
        inputs, outputs: the signature, in the order of the net's inputs and outputs.

    Raises:
        ConversionError: a layer's parameters that are not converted; names the layer.
    """
    import onnx

    graph = Graph()
    entries = {name: f"input/{number}" for number, (name, _) in enumerate(net.inputs)}
    values = dict(entries)
    for layer, (bottoms, tops), own in zip(net.layers, shapes, weights, strict=True):
        graph.layer = layer.name
        step = Step(layer, [values[name] for name in layer.bottoms], bottoms, tops, own)
        values |= zip(layer.tops, WRITERS[layer.type](graph, step), strict=True)
    made = onnx.helper.make_graph(
        graph.nodes,
        "main_graph",
        [onnx.helper.make_tensor_value_info(entries[name], 1, None) for name, _ in net.inputs],
        [onnx.helper.make_tensor_value_info(values[name], 1, None) for name, _, _ in net.outputs],
        graph.constants,
    )
    renamed = {entries[name]: spec.name for (name, _), spec in zip(net.inputs, inputs, strict=True)}
    onnx_graph.rename(made, renamed, [spec.name for spec in outputs])
    for value, spec in zip((*made.input, *made.output), (*inputs, *outputs), strict=True):
        onnx_graph.set_shape(value, spec.shape)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
