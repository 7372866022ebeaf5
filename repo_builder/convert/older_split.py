"""Split of opset 18 in words of older opsets: onnx's version converter has no adapter from 18 to 17 (onnx 1.23)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_builder.convert import onnx_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def rewrite(model: ModelProto) -> ModelProto:
    """Every Split as Slices, where the sizes of its parts are known; others stay as they are.

    A number of parts without sizes makes equal ones, the last one smaller where the axis does not divide.
    """
    import onnx

    if not any(_split(node) for graph in onnx_graph.subgraphs(model.graph) for node in graph.node):
        return model
    model = onnx.shape_inference.infer_shapes(model)
    for graph in onnx_graph.subgraphs(model.graph):
        shapes = _shapes(graph)
        nodes = [new for node in graph.node for new in _slices(graph, node, shapes)]
        del graph.node[:]
        graph.node.extend(nodes)
    return model


def _split(node: NodeProto) -> bool:
    return node.op_type == "Split" and node.domain in ("", "ai.onnx")


def _shapes(graph: GraphProto) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            found[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return found


def _sizes(graph: GraphProto, node: NodeProto, axis: int, shapes: dict[str, list[int | None]]) -> list[int] | None:
    from onnx import numpy_helper

    if len(node.input) > 1 and node.input[1]:
        given = next((t for t in graph.initializer if t.name == node.input[1]), None)
        return None if given is None else [int(n) for n in numpy_helper.to_array(given)]
    shape = shapes.get(node.input[0])
    size = shape[axis] if shape else None
    if size is None:
        return None
    step = -(-size // len(node.output))
    return [max(0, min(step, size - number * step)) for number in range(len(node.output))]


def _slices(graph: GraphProto, node: NodeProto, shapes: dict[str, list[int | None]]) -> list[NodeProto]:
    from onnx import TensorProto, helper

    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    sizes = _sizes(graph, node, axis, shapes) if _split(node) else None
    if sizes is None:
        return [node]
    made: list[NodeProto] = []
    start = 0
    for output, size in zip(node.output, sizes, strict=True):
        bounds = {"starts": start, "ends": start + size, "axes": axis}
        start += size
        if not output:
            continue
        names = [f"{output}__{key}" for key in bounds]
        for name, value in zip(names, bounds.values(), strict=True):
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [value]))
        made.append(helper.make_node("Slice", [node.input[0], *names], [output], name=f"{output}__part"))
    return made
