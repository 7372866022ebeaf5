"""TensorFlow Lite files: FlatBuffers with the identifier ``TFL3``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceCorruptError
from repo_builder.formats import source_file, tensorflow_framework
from repo_builder.tensors import TensorSpec

NAME = "tflite"
TAKES = "a TensorFlow Lite file (.tflite)"
FRAMEWORK, RUNTIME = tensorflow_framework.FRAMEWORK, tensorflow_framework.LITE_RUNTIME
opened, run = tensorflow_framework.opened, tensorflow_framework.run
_BUFFERS = 4  # field of the root table; tensorflow/lite/schema/schema.fbs: Model.buffers


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() in (".tflite", ".lite")


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or no TFLite file.
    """
    source_file.refuse_stand_ins(path)
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise _corrupt(path, "is no TensorFlow Lite file: it lacks the identifier TFL3")
    try:
        whole = _whole(data)
    except struct.error:
        whole = False
    if not whole:
        raise _corrupt(path, "is truncated: it names weights beyond its end")
    return Artifact(path, NAME, tuple(inputs), files=(path.name,), facts={"kind": NAME})


def _whole(data: bytes) -> bool:
    """Whether all buffers of weights lie inside the file."""

    def field(table: int, number: int) -> int:
        """The place that a field of a table points to; 0 where the table lacks it."""
        vtable = table - struct.unpack_from("<i", data, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        return _points(data, table + offset) if offset else 0

    buffers = field(_points(data, 0), _BUFFERS)
    if not buffers:
        return False
    for number in range(struct.unpack_from("<I", data, buffers)[0]):
        content = field(_points(data, buffers + 4 + 4 * number), 0)
        if content and content + 4 + struct.unpack_from("<I", data, content)[0] > len(data):
            return False
    return True


def _points(data: bytes, place: int) -> int:
    return int(place + struct.unpack_from("<I", data, place)[0])


def _corrupt(path: Path, what: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} {what}", expected="a whole .tflite file", mend="convert the model or copy the file again"
    )
