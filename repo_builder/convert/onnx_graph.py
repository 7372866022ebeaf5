"""Changes to an exported ONNX graph that leave its numbers alone: names, shapes, opset, IR version, metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import ConversionError
from repo_builder.tensors import Shape, TensorSpec, dtype

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

EXTERNAL_FROM = (1 << 31) - (1 << 24)
"""Bytes from which weights go into one ``NAME.data`` beside the graph: protobuf ends at 2 GiB."""
_LARGE = 1 << 20
"""Bytes of a weight that no operator's version depends on."""
_SPLIT_COUNTS = 18
"""The opset from which Split may name a number of parts."""


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and every graph inside its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from subgraphs(inner)


def rename(graph: GraphProto, inputs: Mapping[str, str], outputs: Sequence[str]) -> None:
    """Give inputs (old name -> new name) and outputs (by position) their names.

    An inner value that bears one of these names is renamed. An output that is an input, a weight or another output gets
    an Identity node of its own, since ONNX Runtime refuses one name for two values; an input that is an output under
    the same name stays so.
    """
    if len(outputs) != len(graph.output):
        raise ConversionError(f"the file has {len(graph.output)} outputs, the source model has {len(outputs)}")
    used = set(_names(graph))
    taken = {*inputs.values(), *outputs}
    mapping: dict[str, str] = dict(inputs)
    for name in sorted(used & taken - set(inputs)):
        mapping[name] = _unused(name, used | taken)
        used.add(mapping[name])
    produced = {name for node in graph.node for name in node.output}
    copies = []
    for value, wanted in zip(graph.output, outputs, strict=True):
        if value.name in produced:
            produced.remove(value.name)
            mapping[value.name] = wanted
        elif inputs.get(value.name) != wanted:
            copies.append((value.name, wanted))
    _apply(graph, mapping)
    for name, wanted in copies:
        graph.node.add(op_type="Identity", name=f"output_{wanted}", input=[mapping.get(name, name)], output=[wanted])
    for value, wanted in zip(graph.output, outputs, strict=True):
        value.name = wanted


def set_shape(value: ValueInfoProto, shape: Shape) -> None:
    """Write the shape of an input or output; a string becomes a symbolic dim of that name."""
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    dims.SetInParent()
    for size in shape:
        if isinstance(size, str):
            dims.dim.add(dim_param=size)
        else:
            dims.dim.add(dim_value=size)


def set_inputs(graph: GraphProto, found: Mapping[str, ValueInfoProto], specs: Sequence[TensorSpec]) -> None:
    """The graph's inputs in the order of ``specs``; one that no node uses, and an exporter dropped, is there again.

    Args:
        found: name of a spec -> the file's input for it.
    """
    from onnx import ValueInfoProto

    ordered = []
    for spec in specs:
        value = ValueInfoProto()
        if spec.name in found:
            value.CopyFrom(found[spec.name])
        else:
            value.name = spec.name
            value.type.tensor_type.elem_type = dtype(spec.dtype).onnx
            set_shape(value, spec.shape)
        ordered.append(value)
    del graph.input[:]
    graph.input.extend(ordered)


def strip(model: ModelProto) -> None:
    """Remove what depends on where and when the file was made: metadata, comments, producer, inner shapes, graph name.

    Inner shapes are inferred again by whoever loads the file, and an exporter names their dims after its own symbols.
    """
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        model.ClearField(field)
    _clear(model, "metadata_props")
    for function in model.functions:
        function.ClearField("doc_string")
        _clear(function, "metadata_props", "value_info")
        for node in function.node:
            _strip_node(node)
    for number, graph in enumerate(subgraphs(model.graph)):
        graph.name = "main_graph" if number == 0 else f"graph_{number}"
        graph.ClearField("doc_string")
        _clear(graph, "metadata_props", "value_info")
        for part in (*graph.input, *graph.output, *graph.initializer):
            part.ClearField("doc_string")
            _clear(part, "metadata_props")
        for node in graph.node:
            _strip_node(node)
    used = {node.domain for graph in subgraphs(model.graph) for node in graph.node}
    used |= {node.domain for function in model.functions for node in function.node} | {"", "ai.onnx"}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda opset: str(opset.domain)))


def at_opset(model: ModelProto, opset: int) -> ModelProto:
    """The model at exactly this opset of the default domain, converted where it is at another.

    Raises:
        ConversionError: onnx's version converter cannot, with its reason.
    """
    from onnx import version_converter

    found = opset_of(model)
    if found == opset:
        return model
    if opset < _SPLIT_COUNTS <= found:
        from repo_builder.convert import older_split

        model = older_split.rewrite(model)
    held = _without_weights(model)
    try:
        converted = version_converter.convert_version(model, opset)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rpartition("` failed: ")[2]
        raise ConversionError(f"onnx cannot convert opset {found} to {opset}: {reason}") from error
    finally:
        _fill(model.graph, held)
    _fill(converted.graph, held)
    if opset_of(converted) != opset:
        raise ConversionError(f"asked for opset {opset}, the file has {opset_of(converted)}")
    if opset < found:
        for graph in subgraphs(converted.graph):
            for node in graph.node:
                _drop_newer(node, found, opset)
    return converted


def _without_weights(model: ModelProto) -> dict[str, bytes]:
    """Take the large weights out of the graph, by name: the version converter needs the rest alone, below 2 GiB."""
    held = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _LARGE:
            held[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    return held


def _fill(graph: GraphProto, held: Mapping[str, bytes]) -> None:
    for tensor in graph.initializer:
        if tensor.name in held:
            tensor.raw_data = held[tensor.name]


def _drop_newer(node: NodeProto, newer: int, older: int) -> None:
    """Remove attributes that the older operator set does not know, where they have their default of the newer one.

    onnx's version converter leaves them (``noop_with_empty_axes`` of ReduceL2, below opset 18).
    """
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return
    known = onnx.defs.get_schema(node.op_type, older).attributes
    told = onnx.defs.get_schema(node.op_type, newer).attributes
    for attribute in [a for a in node.attribute if a.name not in known and a.name in told]:
        default = told[attribute.name].default_value
        if onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(default):
            node.attribute.remove(attribute)


def lower_ir(model: ModelProto, ir_version: int) -> None:
    """Write an IR version of at most ``ir_version``; the checker decides whether the file holds anything newer.

    Raises:
        ConversionError: model-local functions need IR version 8.
    """
    if model.functions and ir_version < 8:
        raise ConversionError(f"the file has model-local functions, which IR version {ir_version} does not know")
    model.ir_version = min(model.ir_version, ir_version)


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def save(model: ModelProto, path: Path) -> tuple[str, ...]:
    """Write one file, or with ``EXTERNAL_FROM`` bytes the weights to ``NAME.data`` beside it; gives the file names."""
    import onnx

    path.unlink(missing_ok=True)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    if model.ByteSize() < EXTERNAL_FROM:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return (path.name,)
    onnx.save_model(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    return (path.name, data.name)


def _names(graph: GraphProto) -> Iterator[str]:
    for inner in subgraphs(graph):
        yield from (value.name for value in (*inner.input, *inner.output, *inner.initializer))
        yield from (tensor.values.name for tensor in inner.sparse_initializer)
        for node in inner.node:
            yield from (name for name in (*node.input, *node.output) if name)


def _apply(graph: GraphProto, mapping: Mapping[str, str]) -> None:
    for inner in subgraphs(graph):
        for value in (*inner.input, *inner.output, *inner.initializer):
            value.name = mapping.get(value.name, value.name)
        for tensor in inner.sparse_initializer:
            tensor.values.name = mapping.get(tensor.values.name, tensor.values.name)
        for node in inner.node:
            node.input[:] = [mapping.get(name, name) for name in node.input]
            node.output[:] = [mapping.get(name, name) for name in node.output]


def _unused(name: str, used: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in used:
        number += 1
    return f"{name}_{number}"


def _strip_node(node: Any) -> None:
    node.ClearField("doc_string")
    _clear(node, "metadata_props")
    for attribute in node.attribute:
        attribute.ClearField("doc_string")


def _clear(message: Any, *fields: str) -> None:
    for name in fields:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
