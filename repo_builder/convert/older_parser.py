"""An ONNX graph in words that the parser of TensorRT 8.6 knows: it reads past attributes that came after opset 13."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_graph

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_END = (1 << 31) - 1


def rewritten(source: Artifact, out: Path) -> Artifact:
    """The source, or ``out`` where a node had to be written in other words; the same numbers.

    ``Shape`` with ``start`` and ``end`` (opset 15) becomes a Shape and a Slice: the parser takes the whole shape, in
    silence, and fails at a later node or computes with other sizes (8.6.1, tried).
    """
    import onnx

    model = onnx.load(str(source.path))
    changed = [_sliced(graph) for graph in onnx_graph.subgraphs(model.graph)]
    if not any(changed):
        return source
    files = onnx_graph.save(model, out)
    return replace(source, path=out, files=files)


def _sliced(graph: GraphProto) -> bool:
    nodes = [new for number, node in enumerate(graph.node) for new in _words(graph, node, number)]
    changed = len(nodes) > len(graph.node)
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _words(graph: GraphProto, node: NodeProto, number: int) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type != "Shape" or not (given.get("start") or "end" in given):
        yield node
        return
    name = f"{node.output[0]}__whole_{number}"
    bounds = []
    for key, value in (("start", given.get("start", 0)), ("end", given.get("end", _END)), ("axes", 0)):
        bounds.append(f"{name}_{key}")
        graph.initializer.append(helper.make_tensor(bounds[-1], TensorProto.INT64, [1], [value]))
    yield helper.make_node("Shape", list(node.input), [name], name=name)
    yield helper.make_node("Slice", [name, *bounds], list(node.output), name=node.name or f"{name}_slice")
