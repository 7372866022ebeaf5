"""The opset that an ONNX file is stamped with, against its nodes: an exporter may stamp one that its nodes do not fit.

Source: the operator schemas of the ``onnx`` package; MXNet 1.9's exporter stamps the newest opset on nodes of opset 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT = ("", "ai.onnx")


@dataclass(frozen=True)
class Stamp:
    """What the nodes of the default domain say of the stamp.

    Attributes:
        stamped: the opset of the file.
        misfits: ``node 'name' (Operator): why`` of the nodes that do not fit it, at most three.
        fitting: the opsets that all nodes fit, rising; empty where there is none.
        ambiguous: operators whose meaning may differ between the fitting opsets.
    """

    stamped: int
    misfits: tuple[str, ...] = ()
    fitting: tuple[int, ...] = ()
    ambiguous: tuple[str, ...] = ()

    @property
    def nearest(self) -> int | None:
        """The fitting opset that is nearest to the stamped one; the exporter knew operators of about that age."""
        return min(self.fitting, key=lambda opset: (abs(opset - self.stamped), opset), default=None)

    def told(self) -> str:
        """One sentence; empty where the stamp fits."""
        if not self.misfits:
            return ""
        first, last = (self.fitting[0], self.fitting[-1]) if self.fitting else (0, 0)
        fit = f"all nodes fit {f'opset {first}' if first == last else f'opsets {first} to {last}'}"
        return f"the file is stamped opset {self.stamped}, but {self.misfits[0]}; " + (
            fit if self.fitting else "no opset has all of its nodes"
        )


def look(model: Any) -> Stamp:
    """Compare the stamp with every node of the default domain: operator, attributes, numbers of inputs and outputs."""
    import onnx

    stamped = next((int(o.version) for o in model.opset_import if o.domain in DEFAULT), 0)
    local = {(f.domain, f.name) for f in model.functions}
    nodes = [n for n in _nodes(model.graph) if n.domain in DEFAULT and (n.domain, n.op_type) not in local]
    misfits = tuple(f"{_called(node)}: {why}" for node in nodes if (why := misfit(node, stamped)))
    if not misfits:
        return Stamp(stamped)
    kinds = list({_kind(node): node for node in nodes}.values())
    newest = max(onnx.defs.onnx_opset_version(), 1)
    fitting = tuple(opset for opset in range(1, newest + 1) if not any(misfit(node, opset) for node in kinds))
    return Stamp(stamped, misfits[:3], fitting, tuple(sorted(_ambiguous(kinds, fitting))))


def misfit(node: Any, opset: int) -> str:
    """Why a node is none of this opset; empty where it is."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return f"opset {opset} has no operator {node.op_type}"
    if schema.deprecated:
        return f"{node.op_type} is deprecated in opset {opset}"
    given = {attribute.name: attribute.type for attribute in node.attribute}
    for name, kind in given.items():
        if name not in schema.attributes:
            return f"{node.op_type} of opset {opset} has no attribute '{name}'"
        if kind and int(schema.attributes[name].type) != int(kind):
            return f"{node.op_type} of opset {opset} has an attribute '{name}' of another type"
    lacks = [name for name, told in schema.attributes.items() if told.required and name not in given]
    if lacks:
        return f"{node.op_type} of opset {opset} needs the attribute '{lacks[0]}'"
    inputs, outputs = len(node.input), len(node.output)
    if not schema.min_input <= inputs <= schema.max_input:
        return f"{node.op_type} of opset {opset} does not take {inputs} inputs"
    if not schema.min_output <= outputs <= schema.max_output:
        return f"{node.op_type} of opset {opset} does not give {outputs} outputs"
    return ""


def _ambiguous(nodes: list[Any], fitting: tuple[int, ...]) -> Iterator[str]:
    import onnx

    for name in {node.op_type for node in nodes}:
        if len({onnx.defs.get_schema(name, opset).since_version for opset in fitting}) > 1:
            yield name


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(inner)


def _kind(node: Any) -> tuple[Any, ...]:
    attributes = tuple(sorted((a.name, int(a.type)) for a in node.attribute))
    return node.op_type, attributes, len(node.input), len(node.output)


def _called(node: Any) -> str:
    return f"node '{node.name}'" if node.name else f"the node that makes '{next(iter(node.output), '')}'"
