"""Which integers an ONNX graph takes, where it says so: inputs that are indices into a table of known size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LEAD = {
    *("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten"),
    *("Add", "Sub", "Mul", "Where", "Less", "Greater", "GreaterOrEqual", "LessOrEqual", "Not", "Clip", "Max", "Min"),
}
"""Operators between an input and the index: those that keep its numbers, and those by which a negative one is counted
from the end."""


def of(path: Path) -> list[tuple[int, int] | None]:
    """By input of the graph, the lowest and the highest index into the smallest table that it looks up in; else None.

    Seen are ``Gather`` on a constant, and what leads there from one input and constants alone; in the graph itself, not
    in branches. Arithmetic on the way is not reckoned with: whether the model takes the range shows when it is asked.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    tables = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tables[node.output[0]] = next((list(a.t.dims) for a in node.attribute if a.name == "value"), [])
    return [_range(value.name, graph, tables) for value in graph.input if value.name not in tables]


def _range(name: str, graph: Any, tables: dict[str, list[int]]) -> tuple[int, int] | None:
    sizes, same = [], {name}
    constant = tables.keys() | {""}
    for node in graph.node:  # in topological order
        given = list(node.input)
        if node.op_type in _LEAD and same & set(given) and all(one in same or one in constant for one in given):
            same.add(node.output[0])
        if node.op_type == "Gather" and given[1] in same and given[0] in tables:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            if tables[given[0]]:
                sizes.append(tables[given[0]][axis])
    return (0, min(sizes) - 1) if sizes and min(sizes) > 0 else None
