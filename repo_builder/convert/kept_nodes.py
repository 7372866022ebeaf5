"""``keep_fp32``: names, operators and patterns of the spec as nodes of an ONNX graph; what fits nothing is refused."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.convert import onnx_graph
from repo_builder.errors import SpecError, nearest

if TYPE_CHECKING:
    from onnx import NodeProto


def chosen(patterns: Sequence[str], path: Path, floats: Collection[str] | None = None) -> list[str]:
    """Names of the nodes that bear a name, an operator or a pattern.

    Args:
        floats: nodes that compute in floating point; None: all may.

    Raises:
        SpecError: one fits no node, or none that computes in floating point; the nearest name is given.
    """
    nodes = operators(path)
    known = sorted({x for n, operator in nodes.items() if floats is None or n in floats for x in (n, operator)})
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        fits = _fitting(pattern, nodes)
        if not fits or (floats is not None and not set(fits) & set(floats)):
            why = "which computes nothing in floating point" if fits else "which no node bears"
            raise SpecError(
                f"keep_fp32 names {pattern!r}, {why}{nearest(pattern, known)}",
                expected="the name of a node, an operator (Softmax) or a pattern (*/attention/*)",
                mend="inspect the ONNX file for its node names",
            )
        found.update(dict.fromkeys(fits))
    return list(found)


def check_layers(patterns: Sequence[str], path: Path, missing: Collection[str]) -> None:
    """Refuse a name of ``keep_fp32`` that TensorRT has made no layer of: it has no effect on the plan.

    Args:
        path: the ONNX file that was parsed.
        missing: the nodes that were to stay in float32, and of which the network has no layer.

    Raises:
        SpecError: the nearest name that has one is given.
    """
    nodes = operators(path)
    for pattern in patterns:
        if set(_fitting(pattern, nodes)) <= set(missing):
            known = sorted({x for n, operator in nodes.items() if n not in missing for x in (n, operator)})
            raise SpecError(
                f"keep_fp32 names {pattern!r}, of which TensorRT makes no layer{nearest(pattern, known)}",
                expected="nodes that TensorRT computes: it folds constants, and fuses others into a neighbour",
                mend="name the node that it is computed with, or leave it out",
            )


def _fitting(pattern: str, nodes: Mapping[str, str]) -> list[str]:
    return [
        n
        for n, operator in nodes.items()
        if n == pattern or fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(operator, pattern)
    ]


def operators(path: Path) -> dict[str, str]:
    """Name -> operator of every node, in the graphs inside nodes too."""
    return {n.name: n.op_type for n in _nodes(path)}


def outputs(path: Path, names: Collection[str]) -> dict[str, list[str]]:
    """Name -> output tensors of these nodes: a layer of TensorRT 8.6 may bear only the latter."""
    return {n.name: list(n.output) for n in _nodes(path) if n.name in names}


def _nodes(path: Path) -> list[NodeProto]:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return [n for graph in onnx_graph.subgraphs(model.graph) for n in graph.node]
