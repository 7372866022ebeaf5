"""The tensors of an MXNet ``.params`` file: names, dtypes and shapes, read without MXNet and without their values."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from repo_builder.errors import SourceCorruptError
from repo_builder.formats import source_file

# Sources: NDArray::Save, LegacyLoad and NDArray::Load in src/ndarray/ndarray.cc of apache/mxnet v1.9.1.
_LIST = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1}
_RANK, _NAME = 32, 4096


def read(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Shapes by name, without the prefixes ``arg:`` and ``aux:``.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, no such file, without names, or with sparse arrays.
    """
    source_file.refuse_stand_ins(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            magic, _, count = _numbers(file, "<QQQ")
            if magic != _LIST:
                raise ValueError("it does not begin as a list of NDArrays does")
            if count > size // 4:
                raise ValueError(f"it announces {count} arrays")
            shapes = [_array(file, size) for _ in range(count)]
            (named,) = _numbers(file, "<Q")
            if named != count:
                raise ValueError(f"it has {count} arrays and {named} names")
            names = [_name(file) for _ in range(named)]
            if file.read(1):
                raise ValueError("bytes are left at its end")
        except (ValueError, UnicodeDecodeError, OverflowError) as error:
            raise SourceCorruptError(
                f"{path} is truncated or no MXNet file of weights ({error})",
                expected="what net.export or mx.model.save_checkpoint wrote",
                mend="export or copy it again",
            ) from error
    return {name.split(":", 1)[-1]: shape for name, shape in zip(names, shapes, strict=True)}


def _array(file: BinaryIO, size: int) -> tuple[int, ...]:
    (magic,) = _numbers(file, "<I")
    if magic in (_V2, _V3):
        (storage,) = _numbers(file, "<i")
        if storage not in (-1, 0):
            raise ValueError("it holds a sparse array")
    if magic in (_V1, _V2, _V3):
        (rank,) = _numbers(file, "<i")
        kind = "q"
    else:
        rank, kind = magic, "I"
    if not -1 <= rank <= _RANK:
        raise ValueError(f"it holds an array of {rank} axes")
    shape = _numbers(file, f"<{max(rank, 0)}{kind}")
    if rank == -1 or (rank == 0 and magic != _V3):
        return ()
    _, _, number = _numbers(file, "<iii")
    if number not in _BYTES or any(axis < 0 for axis in shape):
        raise ValueError(f"it holds an array of type {number} and shape {list(shape)}")
    length = math.prod(shape) * _BYTES[number]
    if length > size - file.tell():
        raise ValueError(f"{length - size + file.tell()} bytes are missing at the end")
    file.seek(length, os.SEEK_CUR)
    return shape


def _name(file: BinaryIO) -> str:
    (length,) = _numbers(file, "<Q")
    if length > _NAME:
        raise ValueError(f"it holds a name of {length} bytes")
    return _bytes(file, length).decode("utf-8")


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _bytes(file, struct.calcsize(form)))


def _bytes(file: BinaryIO, length: int) -> bytes:
    found = file.read(length)
    if len(found) < length:
        raise ValueError(f"{length - len(found)} bytes are missing at the end")
    return found
