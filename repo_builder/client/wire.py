"""Arrays to and from the raw bytes of the inference protocol.

Source: the binary tensor data of Triton's ``raw_input_contents`` and ``raw_output_contents`` (KServe v2 protocol,
server docs/protocol): little-endian, row-major; every BYTES element is a 4-byte length and its bytes; BF16 is the
upper half of a float32.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from repo_builder.errors import InferenceError
from repo_builder.tensors import dtype

Array = np.ndarray[Any, Any]


def encode(name: str, datatype: str, array: Array) -> bytes:
    """The raw bytes of ``array``, which already has the numpy dtype of ``datatype`` (float32 for BF16)."""
    if datatype == "BYTES":
        return b"".join(_element(name, value) for value in array.ravel())
    if datatype == "BF16":
        return _bf16_bytes(array)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def decode(name: str, datatype: str, shape: tuple[int, ...], raw: Any) -> Array:
    """The array of ``raw`` (bytes or a writable buffer); a view of ``raw`` wherever the dtype allows it.

    BYTES gives an object array of ``bytes``, BF16 gives float32.

    Raises:
        InferenceError: the bytes do not fill the shape.
    """
    if datatype == "BYTES":
        return _elements(name, shape, raw)
    expected = size(datatype, shape)
    if len(raw) != expected:
        raise InferenceError(
            f"tensor '{name}' came with {len(raw)} bytes",
            expected=f"{expected} bytes for {datatype}{list(shape)}",
            mend="look into the server's log: a Python model on an unsuitable numpy can answer with empty tensors",
        )
    array = np.frombuffer(raw, dtype=_stored(datatype)).reshape(shape)
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def size(datatype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of any dtype but BYTES."""
    return math.prod(shape) * _stored(datatype).itemsize


def _stored(datatype: str) -> np.dtype[Any]:
    return np.dtype("<u2") if datatype == "BF16" else np.dtype(dtype(datatype).numpy).newbyteorder("<")


def _element(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        value = _utf8(name, value)
    if not isinstance(value, bytes):
        raise InferenceError(
            f"input '{name}' holds {value!r} of type {type(value).__name__}",
            expected="str or bytes in every element of a BYTES tensor",
            mend="convert it to str first",
        )
    return struct.pack("<I", len(value)) + value


def _utf8(name: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InferenceError(
            f"input '{name}' holds text that UTF-8 cannot write: {error}",
            mend="pass bytes, or clean the text with .encode('utf-8', 'replace')",
        ) from error


def _elements(name: str, shape: tuple[int, ...], raw: Any) -> Array:
    view, at = memoryview(raw), 0
    array: Array = np.empty(math.prod(shape), dtype=object)
    for i in range(array.size):
        end = at + 4
        if end <= len(view):
            end += struct.unpack_from("<I", view, at)[0]
        if end > len(view) or end < at + 4:
            raise InferenceError(
                f"BYTES tensor '{name}' ends within element {i}",
                expected=f"{array.size} elements for shape {list(shape)}",
            )
        array[i] = bytes(view[at + 4 : end])
        at = end
    return array.reshape(shape)


def _bf16_bytes(array: Array) -> bytes:
    """float32 rounded to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, dtype="<f4").view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40
    stored: Array = np.where(np.isnan(array), quiet_nan, rounded).astype("<u2")
    return stored.tobytes()


def text(array: Array) -> list[str]:
    """The elements of a BYTES array as a flat list of str (row-major, UTF-8).

    Raises:
        InferenceError: an element is not text.
    """
    found = []
    for i, value in enumerate(array.ravel()):
        try:
            found.append(value if isinstance(value, str) else value.decode("utf-8"))
        except (AttributeError, UnicodeDecodeError) as error:
            raise InferenceError(
                f"element {i} is not UTF-8 text: {value!r}", expected="a BYTES tensor of UTF-8 text"
            ) from error
    return found
