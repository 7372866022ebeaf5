"""Texts and versions of an ONNX file that everything behind takes for granted: UTF-8, and numbers of 32 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repo_builder.errors import SignatureError, SourceCorruptError
from repo_builder.formats import onnx_external

_VERSIONS = 1 << 31


def check(model: Any, path: Path) -> None:
    """Refuse what protobuf lets pass: a text that is not UTF-8 comes out of it as bytes.

    Raises:
        SourceCorruptError: naming the text, or the operator set.
        SignatureError: an input or output whose name no server can say.
    """
    for text in _texts(model):
        if not isinstance(text, str):
            raise SourceCorruptError(
                f"{path} holds the name {text!r}, which is not UTF-8",
                expected="names in UTF-8, as protobuf wants them",
                mend="the file is damaged, or its exporter wrote names in another encoding: export it again",
            )
    for value in (*model.graph.input, *model.graph.output):
        if "\0" in value.name:
            raise SignatureError(
                f"{path} calls a tensor {value.name!r}: a server would read the name up to its zero character alone",
                expected="names without a zero character",
                mend="rename the tensor in the file",
            )
    for opset in [*model.opset_import, *(o for f in model.functions for o in f.opset_import)]:
        if not 0 <= opset.version < _VERSIONS:
            raise SourceCorruptError(
                f"{path} imports version {opset.version} of the operator set '{opset.domain or 'ai.onnx'}'",
                expected="a version that there may be",
                mend="the file is damaged: export or copy it again",
            )


def _texts(model: Any) -> Iterator[Any]:
    yield from (opset.domain for opset in model.opset_import)
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
        yield from (opset.domain for opset in function.opset_import)
        for node in function.node:
            yield from _of_node(node)
    for tensor in onnx_external.tensors(model):
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)


def _of_graph(graph: Any) -> Iterator[Any]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
    for attribute in node.attribute:
        yield from (attribute.name, attribute.ref_attr_name)
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from _of_graph(graph)
