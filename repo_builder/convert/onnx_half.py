"""A float32 ONNX graph in half precision (fp16 or bf16): every type is in the graph, casts only where types differ.

A strongly typed TensorRT network is built from the graph's types alone. Which tensors of a node may be half follows
from ONNX's own operator schemas at the graph's opset: what ONNX defines in float32 only (the scales of Resize, Range,
NonMaxSuppression) stays float32, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repo_builder.convert import half_values, onnx_graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

FLOAT = 1
_CONTROL = frozenset({"If", "Loop", "Scan"})
_SEQUENCES = ("Sequence", "SplitToSequence", "ConcatFromSequence", "Optional")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")
TYPED = {
    "Cast": "to",
    "Constant": "",
    "ConstantOfShape": "",
    **dict.fromkeys(("EyeLike", "Bernoulli", *_RANDOM), "dtype"),
}
"""Operators whose output type an attribute says, and that attribute; without one, the type of the tensor ``value``."""
_FLOAT_INPUTS = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})


@dataclass(frozen=True)
class Halved:
    """Names of the nodes that compute in half precision, and of those with floats that do not."""

    half: tuple[str, ...]
    float32: tuple[str, ...]


@dataclass
class _Scope:
    """One graph while it is rewritten. ``at``: (name in the source, type) -> name of that value in that type."""

    graph: GraphProto
    types: dict[str, int]
    weights: dict[str, TensorProto]
    parent: _Scope | None = None
    nodes: list[NodeProto] = field(default_factory=list)
    used_weights: dict[str, TensorProto] = field(default_factory=dict)
    at: dict[tuple[str, int], str] = field(default_factory=dict)

    def owner(self, name: str) -> _Scope | None:
        if not name or name in self.types:
            return self if name else None
        return self.parent.owner(name) if self.parent else None


def halve(model: ModelProto, half: int, kept: Collection[str] = (), *, keep_io_types: bool = True) -> Halved:
    """Rewrite ``model``, whose types are inferred and whose nodes are named.

    Args:
        half: ``TensorProto.FLOAT16`` or ``TensorProto.BFLOAT16``.
        kept: names of nodes that stay in float32; a control-flow node keeps all that is in it.
        keep_io_types: float32 inputs and outputs stay so, with casts at the edges; else they become half.
    """
    work = _Halving(model, half, frozenset(kept))
    work.graph(model.graph, None, FLOAT if keep_io_types else half, keep_all=False)
    return Halved(tuple(work.low), tuple(work.high))


def value_types(graph: GraphProto) -> dict[str, int]:
    """Element types of what a graph itself takes and makes, as far as inference knows them; 0 for no tensor."""
    found = {t.name: t.data_type for t in graph.initializer}
    found |= {t.values.name: t.values.data_type for t in graph.sparse_initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.WhichOneof("value")
        found[value.name] = value.type.tensor_type.elem_type if kind == "tensor_type" else 0
    return found


class _Halving:
    def __init__(self, model: ModelProto, half: int, kept: frozenset[str]) -> None:
        self.half, self.kept = half, kept
        self.suffix = {half: half_values.NAMES[half], FLOAT: "fp32"}
        self.used = set(_names(model.graph))
        self.opsets = {_domain(o.domain): o.version for o in model.opset_import}
        self.low: list[str] = []
        self.high: list[str] = []

    def graph(self, graph: GraphProto, parent: _Scope | None, edges: int, *, keep_all: bool) -> None:
        weights = {t.name: t for t in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        del graph.input[:]
        graph.input.extend(inputs)
        scope = _Scope(graph, value_types(graph), weights, parent)
        for value in graph.input:
            if scope.types[value.name] == FLOAT:
                value.type.tensor_type.elem_type = edges
                scope.at[value.name, edges] = value.name
        scope.at.update(((t.values.name, FLOAT), t.values.name) for t in graph.sparse_initializer)
        self._make_outputs(scope)
        asked = {value.name for value in graph.output}
        readers = _readers(graph)
        for node in list(graph.node):
            self._node(node, scope, readers, asked, edges, keep=keep_all or node.name in self.kept)
        for value in graph.output:
            if scope.types.get(value.name) == FLOAT:
                value.type.tensor_type.elem_type = edges
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(scope.nodes)
        graph.initializer.extend(scope.used_weights.values())

    def _make_outputs(self, scope: _Scope) -> None:
        """A node of its own for every output that is a weight or an outer value, so that it can have its own type."""
        graph = scope.graph
        made = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
        for value in graph.output:
            if value.name in made:
                continue
            inner = value.name
            if inner in scope.weights:
                inner = self._fresh(f"{value.name}_weight")
                _rename_reads(graph, value.name, inner)
                scope.weights[inner] = scope.weights.pop(value.name)
                scope.weights[inner].name = inner
                scope.types[inner] = scope.types[value.name]
            else:
                value.name = self._fresh(f"{value.name}_out")
                scope.types[value.name] = self._type(inner, scope)
            graph.node.add(op_type="Identity", name=f"output_{value.name}", input=[inner], output=[value.name])

    def _node(
        self, node: NodeProto, scope: _Scope, readers: dict[str, list[Any]], asked: set[str], edges: int, *, keep: bool
    ) -> None:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                self.graph(inner, scope, FLOAT if keep else self.half, keep_all=keep)
        takes, gives = self._wanted(node, scope, keep)
        if node.op_type in TYPED and self._read_as_float(node, readers, scope):
            gives = [FLOAT] * len(node.output)
        kinds, node_outputs = set(), list(node.output)
        for position, name in enumerate(node.input):
            if self._type(name, scope) == FLOAT:
                kinds.add(takes(position) if (node.op_type, position) not in _FLOAT_INPUTS else 0)
                node.input[position] = self._value(name, takes(position), scope)
        casts = []
        for position, name in enumerate(node_outputs):
            kind = scope.types.setdefault(name, FLOAT if kinds & {FLOAT, self.half} else 0)
            if not name or kind != FLOAT:
                continue
            native = gives[position]
            kinds.add(native)
            if name in asked and native != edges:
                node.output[position] = self._fresh(f"{name}_{self.suffix[native]}")
                casts.append((node.output[position], edges, name))
                scope.at[name, edges] = name
            scope.at[name, native] = node.output[position]
        if node.op_type in TYPED and scope.types[out := node_outputs[0]] == FLOAT and (out, self.half) in scope.at:
            _retype(node, self.half)
        if kinds & {FLOAT, self.half} and node.op_type != "Constant":
            (self.low if self.half in kinds else self.high).append(node.name)
        scope.nodes.append(node)
        for source, kind, target in casts:
            self._cast(source, kind, target, scope)
        self._other_weights(node, scope)

    def _wanted(self, node: NodeProto, scope: _Scope, keep: bool) -> tuple[Callable[[int], int], list[int]]:
        """The types that a node's float32 inputs (by position) and outputs get."""
        schema = None if keep or node.op_type in _CONTROL else self._schema(node)
        if schema is None or node.op_type.startswith(_SEQUENCES):
            kind = self.half if node.op_type in _CONTROL and not keep else FLOAT
            return (lambda _position: kind), [kind] * len(node.output)
        half = f"tensor({half_values.ONNX_NAMES[self.half]})"
        halves = {c.type_param_str for c in schema.type_constraints if half in c.allowed_type_strs}
        inputs = [_formal(schema.inputs, i) for i in range(len(node.input))]
        outputs = [_formal(schema.outputs, i) for i in range(len(node.output))]
        bound = {kind for kind, name in zip(inputs, node.input, strict=True) if self._type(name, scope) == FLOAT}
        bound |= set(outputs) if node.op_type in TYPED else set()

        def takes(position: int) -> int:
            stays = (node.op_type, position) in _FLOAT_INPUTS or inputs[position] not in halves
            return FLOAT if stays else self.half

        return takes, [self.half if kind in bound & halves else FLOAT for kind in outputs]

    def _schema(self, node: NodeProto) -> Any:
        from onnx import defs

        domain = _domain(node.domain)
        try:
            return defs.get_schema(node.op_type, self.opsets.get(domain, 0), domain)
        except defs.SchemaError:
            return None

    def _read_as_float(self, node: NodeProto, readers: dict[str, list[Any]], scope: _Scope) -> bool:
        """Everyone who reads a Cast or a constant takes float32: integers keep their digits on their way there."""
        found = [reader for name in node.output for reader in readers.get(name, [])]
        return bool(found) and all(
            self._wanted(reader, scope, reader.name in self.kept)[0](position) == FLOAT for reader, position in found
        )

    def _type(self, name: str, scope: _Scope) -> int:
        owner = scope.owner(name)
        return owner.types[name] if owner else 0

    def _value(self, name: str, kind: int, scope: _Scope) -> str:
        """A float32 value of the source as ``kind``: itself, a converted weight, or a Cast where it is made."""
        owner = scope.owner(name)
        assert owner is not None
        if (name, kind) not in owner.at:
            if name in owner.weights:
                made = name if kind == FLOAT else self._fresh(f"{name}_{self.suffix[kind]}")
                weight = owner.weights[name]
                owner.used_weights[made] = weight if kind == FLOAT else half_values.tensor(weight, kind, made)
            else:
                made = self._fresh(f"{name}_{self.suffix[kind]}")
                self._cast(owner.at[name, self.half if kind == FLOAT else FLOAT], kind, made, owner)
            owner.at[name, kind] = made
        return owner.at[name, kind]

    def _other_weights(self, node: NodeProto, scope: _Scope) -> None:
        for name in node.input:
            owner = scope.owner(name)
            if owner and name in owner.weights and owner.types[name] != FLOAT:
                owner.used_weights[name] = owner.weights[name]

    def _cast(self, source: str, kind: int, target: str, scope: _Scope) -> None:
        from onnx import helper

        scope.nodes.append(helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind))

    def _fresh(self, name: str) -> str:
        made, number = name, 1
        while made in self.used:
            made, number = f"{name}_{number}", number + 1
        self.used.add(made)
        return made


def _names(graph: GraphProto) -> Iterator[str]:
    for inner in onnx_graph.subgraphs(graph):
        yield from value_types(inner)
        for node in inner.node:
            yield from (*node.input, *node.output)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _rename_reads(graph: GraphProto, name: str, made: str) -> None:
    for inner in onnx_graph.subgraphs(graph):
        for node in inner.node:
            node.input[:] = [made if n == name else n for n in node.input]


def _readers(graph: GraphProto) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append((node, position))
    return found


def _formal(parameters: Any, position: int) -> str:
    """The type parameter of an actual input or output; the last formal one of a variadic operator is repeated."""
    return str(parameters[min(position, len(parameters) - 1)].type_str)


def _retype(node: NodeProto, half: int) -> None:
    """Write the half type where a node says its output's type."""
    from onnx import helper, numpy_helper

    found = {attribute.name: attribute for attribute in node.attribute}
    if name := TYPED[node.op_type]:
        if name in found:
            found[name].i = half
        else:
            node.attribute.append(helper.make_attribute(name, half))
        return
    if "value" in found:
        tensor = found["value"].t
    else:
        import numpy as np

        given = next((helper.get_attribute_value(a) for n, a in found.items() if n.startswith("value_float")), [0.0])
        tensor = numpy_helper.from_array(np.asarray(given, dtype=np.float32))
        del node.attribute[:]
    made = helper.make_attribute("value", half_values.tensor(tensor, half, tensor.name))
    del node.attribute[:]
    node.attribute.append(made)
