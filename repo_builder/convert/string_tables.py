"""Strings in an exported graph: an integer output becomes the entry of a table that it is an index into, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_graph
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx as onnx_format

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Tables = dict[str, tuple[str, ...]]


def append(model: ModelProto, outputs: Sequence[str], tables: Mapping[str, Sequence[str]]) -> None:
    """Put a Gather from a string constant behind each output that has a table; no strings exist before that node.

    Args:
        model: the exported graph, its outputs in the order of ``outputs``.
        outputs: names of the outputs, by position.
        tables: by name of an output: the strings.

    Raises:
        ConversionError: the file has another number of outputs.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    if not tables:
        return
    if len(outputs) != len(graph.output):
        raise ConversionError(f"the file has {len(graph.output)} outputs, the source model has {len(outputs)}")
    for value, name in zip(graph.output, outputs, strict=True):
        if name in tables:
            table, strings = f"{value.name}__table", f"{value.name}__strings"
            entries = [entry.encode() for entry in tables[name]]
            graph.initializer.append(helper.make_tensor(table, TensorProto.STRING, [len(entries)], entries))
            graph.node.append(helper.make_node("Gather", [table, value.name], [strings], name=strings))
            value.name = strings
            value.type.tensor_type.elem_type = TensorProto.STRING


def refuse_text(source: Artifact) -> None:
    """Refuse a model that takes text itself.

    Raises:
        ConversionError: it names the input.
    """
    if asked := [spec for spec in source.inputs if spec.dtype == "BYTES"]:
        raise ConversionError(
            f"the input {asked[0]} is text, which a TensorRT plan does not take",
            expected="numbers: token ids, features",
            mend="make numbers of it in a model before the plan (a tokenizer), or choose engine: onnx",
        )


def split(source: Artifact, out: Path) -> tuple[Artifact, Tables]:
    """The source with the indices in place of its strings, and the tables that they are indices into.

    A TensorRT plan holds no strings: a step behind it looks them up.

    Args:
        source: an Artifact of format ``onnx``.
        out: the file to write where an output is a string; in a folder that exists.

    Returns:
        The source itself and no tables where no output is a string.

    Raises:
        ConversionError: an output of strings is no entry of a constant table.
    """
    import onnx

    wanted = [spec.name for spec in source.outputs if spec.dtype == "BYTES"]
    if not wanted:
        return source, {}
    model = onnx.load(str(source.path))
    graph, types = model.graph, _types(model)
    tables: Tables = {}
    for value in graph.output:
        if value.name in wanted:
            node = next((node for node in graph.node if value.name in node.output), None)
            tables[value.name], indices = _looked_up(model, node, value.name)
            value.name, value.type.tensor_type.elem_type = indices, types[indices]
    onnx_graph.rename(graph, {}, [spec.name for spec in source.outputs])
    _drop_unread(model)
    files = onnx_graph.save(model, out)
    made = onnx_format.describe(out)
    return replace(made, batch=source.batch, provenance=source.provenance, files=files), tables


def _looked_up(model: ModelProto, node: NodeProto | None, name: str) -> tuple[tuple[str, ...], str]:
    """The strings of the table, and the name of the value that is an index into it."""
    from onnx import TensorProto, helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        one.output[0]: helper.get_attribute_value(one.attribute[0])
        for one in model.graph.node
        if one.op_type == "Constant" and one.attribute[0].name == "value"
    }
    table = constants.get(node.input[0]) if node and node.op_type == "Gather" else None
    if node is None or table is None or len(table.dims) != 1 or table.data_type != TensorProto.STRING:
        raise ConversionError(
            f"the output {name} is text, which a TensorRT plan does not give, and it is made by "
            + (f"{node.op_type} {node.name!r}" if node else "no node"),
            expected="a Gather from a constant list of strings: it can stand behind the plan",
            mend="give the index in the model and look the text up outside, or choose engine: onnx",
        )
    return tuple(entry.decode() for entry in table.string_data), node.input[1]


def _types(model: ModelProto) -> dict[str, int]:
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _drop_unread(model: ModelProto) -> None:
    """Take away the lookups and their tables; whoever else reads a table keeps it."""
    graph = model.graph
    count = -1
    while count != len(graph.node):
        count = len(graph.node)
        read = _read(model)
        nodes = [node for node in graph.node if read.intersection(node.output)]
        del graph.node[:]
        graph.node.extend(nodes)
    read = _read(model)
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _read(model: ModelProto) -> set[str]:
    graphs = list(onnx_graph.subgraphs(model.graph))
    names = {name for graph in graphs for node in graph.node for name in node.input}
    return names | {value.name for graph in graphs for value in graph.output}
