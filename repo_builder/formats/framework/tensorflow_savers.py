"""Operators of savers, which open files: allowed where nothing but the loader's own saver leads to them.

Models with variables bring them along. A file can be made whose answers, or whose initialisation, run them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import loop

_SAVERS = re.compile(r"Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|ShardedFilename|ShardedFilespec")


def check(meta: Any) -> None:
    """Refuse a MetaGraphDef some of whose answers, or whose loading, run an operator of a saver.

    Looked at are all signatures, the nodes that collections name (initialisation is among them), and every function
    that an object of the file offers. The restore operator, which the loader runs, may read, and only from where the
    loader says.
    """
    graph = _Graph(meta.graph_def)
    saver = meta.saver_def
    roots = {f"the signature {name}": list(_tensors(told)) for name, told in meta.signature_def.items()}
    roots |= {f"the collection {name}": list(told.node_list.value) for name, told in meta.collection_def.items()}
    for place, names in roots.items():
        for node in graph.reached(names):
            for op in graph.savers(node):
                raise _refused(place, op)
    for name in meta.object_graph_def.concrete_functions:
        for op in graph.inside(name):
            raise _refused(f"the function {name}", op)
    if saver.restore_op_name:
        for node in graph.reached([saver.restore_op_name]):
            for op in graph.strange(node, _base(saver.filename_tensor_name)):
                raise _refused("restoring its variables", op)
    else:
        for node in graph.nodes.values():
            for op in graph.savers(node):
                raise _refused(f"the node {node.name}, though the file names no saver", op)


def check_outputs(graph: Any, outputs: Iterable[str]) -> None:
    """Refuse outputs of a GraphDef that lead to an operator of a saver."""
    looked = _Graph(graph)
    for node in looked.reached(outputs):
        for op in looked.savers(node):
            raise _refused("what computes the outputs", op)


class _Graph:
    def __init__(self, graph: Any) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.functions = {function.signature.name: function for function in graph.library.function}

    def reached(self, names: Iterable[str]) -> Iterator[Any]:
        """The nodes that a run of these tensors runs, control inputs among them."""
        todo, seen = [_base(name) for name in names], set()
        while todo:
            name = todo.pop()
            if name not in seen and name in self.nodes:
                seen.add(name)
                todo += map(_base, self.nodes[name].input)
                yield self.nodes[name]

    def savers(self, node: Any) -> Iterator[str]:
        """The operators of savers that a node is, or that the functions that it calls have in them."""
        if _SAVERS.fullmatch(node.op):
            yield node.op
        for name in self._called(node):
            yield from self.inside(name)

    def inside(self, function: str) -> Iterator[str]:
        todo, seen = [function], set()
        while todo:
            name = todo.pop()
            if name not in seen and name in self.functions:
                seen.add(name)
                for node in self.functions[name].node_def:
                    if _SAVERS.fullmatch(node.op):
                        yield node.op
                    todo += self._called(node)

    def strange(self, node: Any, filename: str) -> Iterator[str]:
        """The operators by which a node of the restore operator's writes, or reads another file than ``filename``."""
        if _SAVERS.fullmatch(node.op) and not (node.op.startswith("Restore") and _base(node.input[0]) == filename):
            yield node.op
        for name in self._called(node):
            if name not in self.functions:
                continue
            function = self.functions[name]
            given = dict(zip((a.name for a in function.signature.input_arg), node.input, strict=False))
            for inner in function.node_def:
                if _SAVERS.fullmatch(inner.op) and not (
                    inner.op.startswith("Restore") and _base(given.get(inner.input[0], "")) == filename
                ):
                    yield inner.op
                for called in self._called(inner):
                    yield from self.inside(called)

    def _called(self, node: Any) -> list[str]:
        found = [node.op] if node.op in self.functions else []
        for value in node.attr.values():
            found += [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
        return found


def _tensors(signature: Any) -> Iterator[str]:
    for told in signature.outputs.values():
        yield told.name
        sparse = told.coo_sparse
        yield from (sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name)
        yield from (part.name for part in told.composite_tensor.components)


def _base(name: str) -> str:
    return name.lstrip("^").split(":")[0]


def _refused(place: str, op: str) -> loop.Refused:
    return loop.Refused(
        f"{place} runs the operator {op}, which opens files",
        "operators of savers in the saver alone",
        "do not trust this file; export the model without them",
        "UnsafeSourceError",
    )
