"""Strings in an exported graph: an integer output becomes the entry of a table that it is an index into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repo_builder.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto


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
