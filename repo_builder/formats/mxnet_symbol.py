"""The graph of an MXNet ``symbol.json``, read without MXNet: its inputs, its labels, what its layers take."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats import source_file

# Numbers of mshadow::TypeFlag (3rdparty/mshadow/mshadow/base.h of apache/mxnet).
_DTYPES = ("FP32", "FP64", "FP16", "UINT8", "INT32", "INT8", "INT64", "BOOL")
_UNSAFE = {
    **dict.fromkeys(("_Native", "_NDArray"), "it calls an address in the memory of the process that wrote it"),
    **dict.fromkeys(("Custom", "_CustomFunction"), "it calls Python code"),
    "_CachedOp": "it calls a graph of the process that wrote it",
}
_LOSSES = {"SoftmaxOutput", "Softmax", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"}
_LOSSES |= {"SVMOutput"}
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "BatchNorm", "LeakyReLU", "Embedding", "InstanceNorm"}
_WEIGHTED |= {"LayerNorm", "BatchNorm_v1", "Convolution_v1"}
_NUMBER = re.compile(r"[0-9]{1,18}")
_ROWS = {"Convolution": "num_filter", "FullyConnected": "num_hidden"}


@dataclass(frozen=True)
class Node:
    """One operator or (``null``) variable; ``inputs`` are places of nodes before it."""

    op: str
    name: str
    inputs: tuple[int, ...]
    attrs: Mapping[str, str]


@dataclass(frozen=True)
class Variable:
    """A variable that has no weights: an input. ``shape`` is () where the file does not tell it; 0 is a free axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read(path: Path) -> tuple[Node, ...]:
    """The nodes in the file's order.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or no graph.
        UnsafeSourceError: an operator that runs code from outside the graph.
    """
    graph = source_file.read_json(path)
    nodes = tuple(_nodes(graph, path))
    if not any(node.op != "null" for node in nodes):
        raise _corrupt(path, "has no layers")
    heads = graph.get("heads")
    if not isinstance(heads, list) or not heads or not all(_place(head, len(nodes)) for head in heads):
        raise _corrupt(path, "has no outputs (heads)")
    for op, layer in _operators(graph):
        if op in _UNSAFE:
            raise UnsafeSourceError(
                f"{path} has the operator {op} (layer '{layer}'): {_UNSAFE[op]}",
                expected="operators of MXNet alone",
                mend="express the layer in MXNet's own operators and export the symbol again",
            )
    return nodes


def split(
    nodes: Sequence[Node], shapes: Mapping[str, tuple[int, ...]], path: Path, params: Path
) -> tuple[tuple[Variable, ...], tuple[str, ...]]:
    """Inputs, and labels that only training gives.

    Args:
        shapes: the weights.

    Raises:
        SourceCorruptError: ``params`` lacks weights of a layer, or has others; it names them.
    """
    free = [i for i, node in enumerate(nodes) if node.op == "null" and node.name not in shapes]
    users: dict[int, list[tuple[Node, int]]] = {i: [] for i in free}
    for node in nodes:
        for port, i in enumerate(node.inputs):
            if i in users:
                users[i].append((node, port))
    inputs: list[Variable] = []
    labels: list[str] = []
    for i in free:
        taken = users[i]
        if taken and all(port == 1 and node.op in _LOSSES for node, port in taken):
            labels.append(nodes[i].name)
        elif taken and all(port > 0 and node.op in _WEIGHTED for node, port in taken):
            node = taken[0][0]
            raise _misfit(path, params, f"has no values for '{nodes[i].name}' of layer '{node.name}' ({node.op})")
        else:
            inputs.append(_variable(nodes[i], path))
    for node in nodes:
        rows, weight = node.attrs.get(_ROWS.get(node.op, "")), nodes[node.inputs[1]].name if node.inputs[1:] else ""
        if rows and weight in shapes and shapes[weight][:1] != (int(rows) if _NUMBER.fullmatch(rows) else -1,):
            found = f"has '{weight}' of shape {list(shapes[weight])}, and layer '{node.name}' has {rows} outputs"
            raise _misfit(path, params, found)
    return tuple(inputs), tuple(labels)


def _variable(node: Node, path: Path) -> Variable:
    try:
        shape = ast.literal_eval(node.attrs.get("__shape__", "()"))
        number = int(node.attrs.get("__dtype__", "0"))
        dtype = _DTYPES[number if number >= 0 else 0]
        if not isinstance(shape, tuple) or not all(isinstance(d, int) and -1 <= d < 1 << 31 for d in shape):
            raise ValueError(shape)
    except (ValueError, TypeError, SyntaxError, IndexError, MemoryError, RecursionError) as error:
        raise _corrupt(path, f"gives '{node.name}' no shape or dtype that can be read") from error
    return Variable(node.name, dtype, tuple(max(d, 0) for d in shape))


def _nodes(graph: Mapping[str, Any], path: Path) -> Iterator[Node]:
    found = graph.get("nodes")
    if not isinstance(found, list) or not found:
        raise _corrupt(path, "has no nodes")
    for place, node in enumerate(found):
        told = node if isinstance(node, dict) else {}
        op, name, inputs = told.get("op"), told.get("name"), told.get("inputs", [])
        kinds = [told.get(kind) or {} for kind in ("param", "attr", "attrs")]
        if not all(isinstance(kind, dict) for kind in kinds):
            raise _corrupt(path, f"has a node (number {place}) whose attributes are no object")
        attrs = {key: value for kind in kinds for key, value in kind.items()}
        if not isinstance(op, str) or not isinstance(name, str) or not isinstance(inputs, list):
            raise _corrupt(path, f"has a node (number {place}) without op, name and inputs")
        if not all(_place(one, place) for one in inputs) or not all(isinstance(v, str) for v in attrs.values()):
            raise _corrupt(path, f"has a layer '{name}' (number {place}) that takes what does not stand before it")
        yield Node(op, name, tuple(one[0] for one in inputs), attrs)


def _place(value: Any, end: int) -> bool:
    whole = isinstance(value, list) and len(value) > 1 and all(type(v) is int and v >= 0 for v in value)
    return whole and value[0] < end


def _operators(graph: Any) -> Iterator[tuple[str, str]]:
    todo = [graph]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            if isinstance(value.get("op"), str):
                yield value["op"], str(value.get("name"))
            todo += value.values()


def _misfit(path: Path, params: Path, what: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{params.name} does not fit {path.name}: it {what}",
        expected="the weights of this symbol",
        mend="put the two files of one export beside each other",
    )


def _corrupt(path: Path, what: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} {what}", expected="the symbol.json of an MXNet export", mend="export or copy it again"
    )
