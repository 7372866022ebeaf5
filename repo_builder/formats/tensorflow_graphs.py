"""TensorFlow's protobuf files, read without TensorFlow: whole or not, which operators, which of them are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from repo_builder.errors import ConversionError, SourceCorruptError, SourceMissingError, UnsafeSourceError
from repo_builder.formats import source_file

# Sources: tensorflow/core/protobuf/{saved_model,meta_graph}.proto, core/framework/{graph,function,node_def}.proto.
GRAPH: tuple[int, ...] = ()
META_GRAPH = (2,)
SAVED_MODEL = (2, 2)
"""Numbers of the fields that lead from a file's message to its GraphDef."""

_UNSAFE = {
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc"), "it calls Python code"),
}
_FILES = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|DeleteFile|PrintV2|LoadAndRemapMatrix|InitializeTableFromTextFile(V2)?|\w*Reader"
    r"(V2)?|\w*Dataset(V\d)?|\w*Summary\w*Writer\w*|Write\w*Summary|Debug\w*|DumpTensor\w*|Bigtable\w*"
)
_SAVERS = re.compile(r"Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|ShardedFilename|ShardedFilespec")
"""Operators that open files: never part of an answer, and those of savers, which models with variables bring along."""
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")


def operators(path: Path, way: tuple[int, ...]) -> tuple[str, ...]:
    """The operators of a file's graph and of its functions, sorted.

    Raises:
        SourceMissingError, SourceCorruptError: missing, empty, truncated, or no such file.
        UnsafeSourceError: an operator that runs Python or opens files.
        ConversionError: a graph of JAX, which nothing converts from here.
    """
    source_file.refuse_stand_ins(path)
    try:
        graphs = [memoryview(path.read_bytes())]
        for number in way:
            graphs = [inner for graph in graphs for inner in _messages(graph, number)]
        found = {bytes(op).decode("ascii") for graph in graphs for op in _operators(graph)}
    except (ValueError, UnicodeDecodeError) as error:
        raise _corrupt(path, f"is truncated or no TensorFlow file ({error})") from error
    if not found:
        raise _corrupt(path, "holds no graph")
    for op in sorted(found):
        files = _FILES.fullmatch(op) or (way == GRAPH and _SAVERS.fullmatch(op))
        if not files and op not in _UNSAFE:
            continue
        raise UnsafeSourceError(
            f"{path} has the operator {op}: {_UNSAFE.get(op, 'it reaches for files')}",
            expected="a graph that computes with tensors",
            mend="export the model without it",
        )
    if "XlaCallModule" in found:
        raise ConversionError(
            f"{path} was exported from JAX (XlaCallModule): its graph is compiled, and nothing converts that",
            expected="a graph of TensorFlow's operators",
            mend="export the JAX model itself to ONNX with jax2onnx",
        )
    return tuple(sorted(found))


def check_variables(folder: Path, name: str) -> tuple[Path, ...]:
    """``NAME.index`` and all its ``NAME.data-*`` shards; the name may be empty.

    Raises:
        SourceMissingError, SourceCorruptError: one is missing, empty or truncated.
    """
    index = folder / f"{name}.index"
    source_file.refuse_stand_ins(index)
    with open(index, "rb") as file:
        file.seek(max(0, index.stat().st_size - len(_TABLE_MAGIC)))
        if file.read() != _TABLE_MAGIC:
            raise _corrupt(index, "is truncated: it does not end as a table of variables does")
    shards = [p for p in sorted(folder.glob(f"{name}.data-*")) if _SHARD.search(p.name)]
    wanted = max((int(_SHARD.search(p.name)[2]) for p in shards), default=1)  # type: ignore[index]
    if len(shards) != wanted:
        raise SourceMissingError(
            f"{folder / name} has {len(shards)} of {wanted} files of values ({name}.data-...)",
            expected="every one of them beside the index",
            mend="copy the whole checkpoint",
        )
    for shard in shards:
        if not shard.is_file():
            raise SourceMissingError(f"{shard} is no file")
    return (index, *shards)


def _operators(graph: memoryview) -> Iterator[memoryview]:
    nodes = list(_messages(graph, 1))
    for library in _messages(graph, 2):
        nodes += [node for function in _messages(library, 1) for node in _messages(function, 3)]
    for node in nodes:
        yield from _messages(node, 2)


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of a length-delimited field.

    Raises:
        ValueError: the bytes are no whole protobuf message.
    """
    place = 0
    while place < len(data):
        tag, place = _number(data, place)
        kind, field = tag & 7, tag >> 3
        if not field:
            raise ValueError(f"a field without a number at byte {place}")
        if kind == 0:
            _, place = _number(data, place)
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, place = _number(data, place)
        elif not size:
            raise ValueError(f"a field of kind {kind} at byte {place}")
        if place + size > len(data):
            raise ValueError(f"{place + size - len(data)} bytes are missing at the end")
        if kind == 2 and field == wanted:
            yield data[place : place + size]
        place += size


def _number(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError(f"a number without an end at byte {place}")


def _corrupt(path: Path, what: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} {what}", expected="a whole file that TensorFlow wrote", mend="export or copy it again"
    )
