"""A half-precision graph as a float32 graph that rounds every value to half: what its numbers are, on any CPU.

ONNX Runtime's CPU provider has few half kernels: it computes most of an fp16 graph in float32 without rounding between
nodes, which hides overflow and flatters the loss, and it refuses most bf16 graphs. Here every node computes in float32
and its result is rounded once, as a GPU kernel does that accumulates in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_builder.convert.half_values import BFLOAT16, FLOAT16
from repo_builder.convert.onnx_half import FLOAT, TYPED, value_types

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

EXACT = "__float32"
"""Ends the name of a value before it is rounded."""
_HALVES = frozenset({FLOAT16, BFLOAT16})
_MOVES = frozenset(
    (
        *("Reshape", "Transpose", "Gather", "GatherND", "GatherElements", "Unsqueeze", "Squeeze", "Slice", "Concat"),
        *("Identity", "Expand", "Split", "Flatten", "Where", "MaxPool", "Relu", "Tile", "Pad", "If", "Loop", "Scan"),
        *("Constant", "ConstantOfShape", "SpaceToDepth", "DepthToSpace"),
    )
)
"""Operators that make no new values: there is nothing to round."""


def rounded(model: ModelProto) -> ModelProto:
    """Rewrite a model (types inferred, weights in memory) in place; its half inputs and outputs become float32."""
    _graph(model.graph, {})
    return model


def show(model: ModelProto) -> dict[str, str]:
    """Make every rounded value, and what it was before, an output of a rounded model; gives value -> node."""
    from onnx import helper

    makers, shown = {}, {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if not name.endswith(EXACT):
                continue
            plain = name.removesuffix(EXACT)
            makers[plain] = node.name
            new = [n for n in (name, plain) if n not in shown]
            model.graph.output.extend(helper.make_tensor_value_info(n, FLOAT, None) for n in new)
    return makers


def _graph(graph: GraphProto, outer: dict[str, int]) -> None:
    types = {**outer, **value_types(graph)}
    for tensor in graph.initializer:
        _widen(tensor)
    nodes: list[NodeProto] = []
    for value in (*graph.input, *graph.output):
        _float(value)
    for node in graph.node:
        kinds = [types.get(name, 0) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _graph(inner, types)
        nodes += _rounding(node, kinds)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _rounding(node: NodeProto, kinds: list[int]) -> list[NodeProto]:
    """The node in float32, followed by a rounding of each output that was half."""
    from onnx import helper

    attribute = TYPED.get(node.op_type)
    for found in node.attribute:
        if attribute and found.name == attribute and found.i in _HALVES:
            found.i = FLOAT
    if node.op_type in _MOVES:
        return [node]
    after = []
    for position, kind in enumerate(kinds):
        if kind not in _HALVES:
            continue
        name = node.output[position]
        node.output[position] = f"{name}{EXACT}"
        after += [
            helper.make_node("Cast", [f"{name}{EXACT}"], [f"{name}__rounded"], name=f"{name}__round", to=kind),
            helper.make_node("Cast", [f"{name}__rounded"], [name], name=f"{name}__widen", to=FLOAT),
        ]
    return [node, *after]


def _float(value: ValueInfoProto) -> None:
    if value.type.tensor_type.elem_type in _HALVES:
        value.type.tensor_type.elem_type = FLOAT


def _widen(tensor: TensorProto) -> None:
    """The same values in float32."""
    import numpy as np
    from onnx import numpy_helper

    if tensor.data_type not in _HALVES:
        return
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
