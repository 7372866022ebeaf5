"""Weights of a Hugging Face folder: which files hold them, whether all are there and whole, and what they count."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, SourceMissingError
from repo_builder.formats import pickle_scan, source_file
from repo_builder.formats.torch_archive import TorchArchive

# Source: the safetensors format description (README of huggingface/safetensors): u64 header size, JSON header, data.
_OTHERS = {"tf_model.h5": ("TensorFlow", "from_tf"), "flax_model.msgpack": ("Flax", "from_flax")}
_HEADER_LIMIT = 100_000_000
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16}
_BITS |= {"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64}


@dataclass(frozen=True)
class Weights:
    """The weight files of one module folder.

    Attributes:
        files: names relative to the folder, the index included.
        kind: ``safetensors``, or ``pickle`` for ``pytorch_model.bin`` files that hold tensors alone.
        parameters: number of values, None where the kind does not tell.
        bytes: bytes of the values.
        dtypes: number of values by dtype name (``F32``).
    """

    files: tuple[str, ...]
    kind: str
    parameters: int | None = None
    bytes: int | None = None
    dtypes: dict[str, int] = field(default_factory=dict)


def find(folder: Path) -> Weights:
    """The weights of a folder, safetensors before pickles, checked without loading a tensor.

    Raises:
        SourceMissingError: no weights, or a shard of the index is missing.
        SourceCorruptError: a truncated file or an index that is not one.
        UnsafeSourceError: only pickles, and one names more than tensors.
        PathEscapeError: the index names a file outside the folder.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        name, index = f"{stem}{suffix}", f"{stem}{suffix}.index.json"
        files: tuple[str, ...] = (name,)
        shards = files
        if not (folder / name).exists():
            if not (folder / index).exists():
                continue
            shards = _shards(folder, index)
            files = (index, *shards)
        return _safetensors(folder, files, shards) if suffix == ".safetensors" else _pickles(folder, files, shards)
    for name, (owner, option) in _OTHERS.items():
        if (folder / name).exists():
            raise SourceMissingError(
                f"{folder} holds weights of {owner} alone ({name})",
                expected="model.safetensors or pytorch_model.bin",
                mend=f"with transformers 4: AutoModel.from_pretrained(folder, {option}=True).save_pretrained(folder)",
            )
    raise SourceMissingError(
        f"{folder} holds no weights",
        expected="model.safetensors, model.safetensors.index.json with its shards, or pytorch_model.bin",
        mend="download the weights too, or save the model again with save_pretrained",
    )


def _shards(folder: Path, index: str) -> tuple[str, ...]:
    table = source_file.read_json(folder / index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise SourceCorruptError(
            f"{folder / index} has no weight_map", expected="a map from tensor names to files", mend="download it again"
        )
    shards = tuple(sorted(set(table.values())))
    for shard in shards:
        source_file.inside(folder, shard, owner=index)
    lost = [shard for shard in shards if not (folder / shard).exists()]
    if lost:
        raise SourceMissingError(
            f"{len(lost)} of {len(shards)} weight files that {index} names are missing from {folder}: "
            + ", ".join(lost[:4]),
            expected="every shard beside the index",
            mend="download the missing files",
        )
    return shards


def _pickles(folder: Path, files: tuple[str, ...], shards: tuple[str, ...]) -> Weights:
    for name in shards:
        source_file.refuse_stand_ins(source_file.inside(folder, name, owner=str(folder)))
        if zipfile.is_zipfile(folder / name):
            with TorchArchive(folder / name, str(folder / name)) as archive:
                archive.check_pickles()
        else:
            pickle_scan.check_legacy(folder / name)
    return Weights(files, "pickle")


def _safetensors(folder: Path, files: tuple[str, ...], shards: tuple[str, ...]) -> Weights:
    parameters = size = 0
    dtypes: dict[str, int] = {}
    for name in shards:
        for dtype, shape, span in _tensors(source_file.inside(folder, name, owner=str(folder))):
            parameters += prod(shape)
            size += span
            dtypes[dtype] = dtypes.get(dtype, 0) + prod(shape)
    return Weights(files, "safetensors", parameters, size, dict(sorted(dtypes.items())))


def _tensors(path: Path) -> list[tuple[str, list[int], int]]:
    """(dtype, shape, bytes) of every tensor of a safetensors file, whose size must be what its header says."""
    source_file.refuse_stand_ins(path)
    size = path.stat().st_size
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise _corrupt(path, f"its header should take {length} bytes, the file has {size}")
        head = handle.read(length)
    try:
        table: dict[str, Any] = json.loads(head)
        table.pop("__metadata__", None)
        tensors = [(str(t["dtype"]), [int(d) for d in t["shape"]], t["data_offsets"]) for t in table.values()]
        spans = sorted((int(start), int(end)) for _, _, (start, end) in tensors)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _corrupt(path, f"its header is not a table of tensors ({type(error).__name__})") from error
    end = 0
    for start, stop in spans:
        if start != end or stop < start:
            raise _corrupt(path, f"its tensors do not lie side by side (byte {start} after {end})")
        end = stop
    if 8 + length + end != size:
        raise _corrupt(path, f"it has {size} bytes, its header says {8 + length + end}")
    for dtype, shape, (start, stop) in tensors:
        if dtype in _BITS and prod(shape) * _BITS[dtype] != 8 * (stop - start):
            raise _corrupt(path, f"a tensor {dtype}{shape} has {stop - start} bytes")
    return [(dtype, shape, stop - start) for dtype, shape, (start, stop) in tensors]


def _corrupt(path: Path, why: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} is no whole safetensors file: {why}",
        expected="a header and all tensors that it names",
        mend="the file is truncated or damaged: download or copy it again",
    )
