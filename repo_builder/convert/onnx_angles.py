"""Floats that are computed from integers alone and need all their digits: positions on their way to a sine, say.

Half precision tells integers apart up to 2048 (fp16) or 256 (bf16). The angle of position 3001 in a rotary embedding
would be wrong by a radian, and the bucket of a relative position, a logarithm cast to an integer, another bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repo_builder.convert.onnx_half import FLOAT, value_types

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_SINKS = frozenset({"Sin", "Cos", "Range"})
_INTEGERS = frozenset(range(2, 8)) | {12, 13}


def nodes(graph: GraphProto) -> tuple[str, ...]:
    """Names of the nodes from integers, through floats, to a Sin, Cos, Range or a Cast to integers.

    Floats that depend on a float input are not among them, nor masks, which end in none of these.
    """
    types = value_types(graph)
    weights = {t.name for t in graph.initializer}
    activations = {v.name for v in graph.input if types[v.name] == FLOAT} - weights
    made: dict[str, NodeProto] = {}
    found: dict[str, None] = {}
    for node in graph.node:
        made.update(dict.fromkeys(node.output, node))
        active = any(name in activations for name in node.input) or any(a.HasField("g") for a in node.attribute)
        if active:
            activations.update(name for name in node.output if types.get(name) == FLOAT)
        elif _sink(node, types) and any(types.get(name) == FLOAT for name in node.input):
            _back(node, made, types, found)
    return tuple(found)


def _sink(node: NodeProto, types: dict[str, int]) -> bool:
    return node.op_type in _SINKS or (node.op_type == "Cast" and types.get(node.output[0]) in _INTEGERS)


def _back(node: NodeProto, made: dict[str, NodeProto], types: dict[str, int], found: dict[str, None]) -> None:
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if here.name in found:
            continue
        found[here.name] = None
        waiting += [made[name] for name in here.input if name in made and types.get(name) == FLOAT]
