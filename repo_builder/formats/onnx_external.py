"""ONNX external data: which files a graph's tensors point to, and whether they are there, whole and in the folder.

Source: onnx/docs/ExternalData.md (keys location, offset, length).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats import source_file

_ADDRESS = "_ORT_MEM_ADDR_"
"""Marks an address in ONNX Runtime's own process (its tensorprotoutils.h); no file may say so."""
_BITS_BELOW_8 = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


def tensors(model: Any) -> Iterator[Any]:
    """Every TensorProto of a ModelProto: initializers and attributes, in the graph, its subgraphs and functions."""
    yield from _graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node(node)


def byte_size(tensor: Any) -> int:
    """Bytes that a tensor's values take, 0 for strings (whose size the file does not declare).

    Raises:
        SourceCorruptError: a negative dimension or an unknown element type.
    """
    import onnx

    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        if name == "STRING":
            return 0
        bits = _BITS_BELOW_8.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError) as error:
        raise SourceCorruptError(
            f"tensor '{tensor.name}' has the unknown ONNX element type {tensor.data_type}",
            mend="export the model again, or update the onnx package",
        ) from error
    return (elements(tensor) * bits + 7) // 8


def elements(tensor: Any) -> int:
    """Number of values of a TensorProto."""
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise SourceCorruptError(f"tensor '{tensor.name}' has the dimension {dim}", mend="export the model again")
        count *= dim
    return count


def check_files(model: Any, path: Path) -> tuple[str, ...]:
    """The external data files of a model, relative to its folder; every tensor lies within the size of its file.

    Tensors inside the file hold as many bytes as they declare.

    Raises:
        PathEscapeError, SourceMissingError, SourceCorruptError: naming the file and a tensor that needs it.
        UnsafeSourceError: an address in memory for a file.
    """
    import onnx

    sizes: dict[str, int] = {}
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            _check_inline(tensor, path)
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        owner = f"tensor '{tensor.name}' of {path.name}"
        location = entries.get("location", "")
        if not location:
            raise SourceCorruptError(f"{owner} has external data but names no file", mend="export the model again")
        if _ADDRESS in location:
            raise UnsafeSourceError(
                f"{owner} names an address in memory as its external data, which ONNX Runtime would read",
                expected="a file in the model's folder",
                mend="export the model again",
            )
        file = source_file.inside(path.parent, location, owner=owner)
        name = posixpath.normpath(location)
        if name not in sizes:
            if byte_size(tensor) or not file.is_file():
                source_file.refuse_stand_ins(file, owner=owner)
            sizes[name] = file.stat().st_size
        _check_span(tensor, entries, name, sizes[name])
    return tuple(sorted(sizes))


def _check_inline(tensor: Any, path: Path) -> None:
    declared = byte_size(tensor)
    raw = tensor.HasField("raw_data")
    typed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    if (raw and len(tensor.raw_data) != declared) or (not raw and declared and not any(typed)):
        raise SourceCorruptError(
            f"tensor '{tensor.name}' of {path.name} declares {declared} bytes (dims {list(tensor.dims)}) and holds "
            f"{len(tensor.raw_data)}",
            expected="as many bytes as its dtype and dims need",
            mend="export the model again",
        )


def _check_span(tensor: Any, entries: dict[str, str], name: str, size: int) -> None:
    declared = byte_size(tensor)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or declared)
    except ValueError as error:
        raise SourceCorruptError(
            f"tensor '{tensor.name}' has an offset or length that is no number ({entries})",
            mend="export the model again",
        ) from error
    if offset < 0 or length != declared:
        raise SourceCorruptError(
            f"tensor '{tensor.name}' declares {length} bytes at offset {offset} in {name}",
            expected=f"{declared} bytes, as its dtype and dims {list(tensor.dims)} need",
            mend="export the model again",
        )
    if offset + length > size:
        raise SourceCorruptError(
            f"{name} is truncated: it has {size} bytes, tensor '{tensor.name}' ends at {offset + length}",
            expected=f"at least {offset + length} bytes",
            mend="copy or download the file again",
        )


def _graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node(node)


def _node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph(attribute.g)
        for graph in attribute.graphs:
            yield from _graph(graph)
        own = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*own, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
