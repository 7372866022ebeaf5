"""Keras files: ``.keras`` (a zip archive) and ``.h5`` (HDF5)."""

from __future__ import annotations

import json
import mmap
import re
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import PathEscapeError, SourceCorruptError, UnsafeSourceError
from repo_builder.formats import source_file, tensorflow_framework
from repo_builder.tensors import TensorSpec

NAME = "keras"
TAKES = "a Keras file (.keras, .h5)"
FRAMEWORK, RUNTIME = tensorflow_framework.FRAMEWORK, tensorflow_framework.RUNTIME
opened, run = tensorflow_framework.opened, tensorflow_framework.run
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(Lambda|__lambda__)"')
_BYTES, _RATIO = 1 << 30, 100
"""An archive that grows beyond the one, and by more than the other, is refused."""


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() in (".keras", ".h5", ".hdf5") and not path.is_dir()


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it. Facts: ``kind``, ``container``.

    The file is looked at before Keras is: the worker looks once more, with an HDF5 library, before Keras opens it.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or of weights alone.
        UnsafeSourceError: a Lambda layer, which is Python code.
        PathEscapeError: the archive has a member outside it.
    """
    source_file.refuse_stand_ins(path)
    with open(path, "rb") as file:
        head = file.read(52)
    if path.suffix.lower() != ".keras":
        container = "hdf5"
        if not head.startswith(_HDF5):
            raise _corrupt(path, "is no HDF5 file")
        _check_hdf5(path, head)
    else:
        container = "zip"
        _check_archive(path)
    return Artifact(path, NAME, tuple(inputs), files=(path.name,), facts={"kind": NAME, "container": container})


def _check_hdf5(path: Path, head: bytes) -> None:
    place = {0: 40, 1: 44}.get(head[8], 28)  # of the end-of-file address, by the superblock's version
    wanted, size = int.from_bytes(head[place : place + 8], "little"), path.stat().st_size
    if wanted > size:
        raise _corrupt(path, f"is truncated: {size} of {wanted} bytes are there")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"model_config") < 0:
            raise SourceCorruptError(
                f"{path} holds weights alone, or other data, not a model's layers (it has no model_config)",
                expected="what model.save('model.keras') writes",
                mend="if these are weights, build the model, load them into it, and save all of it",
            )
        if _LAMBDA.search(data):
            raise _code(path, "a layer")


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                _check_member(path, member)
            if sum(m.file_size for m in members) > max(_BYTES, _RATIO * path.stat().st_size):
                raise _corrupt(path, "unpacks to far more than a model of its size")
            config = json.loads(archive.read("config.json"))
            if not any(name.endswith("model.weights.h5") for name in archive.namelist()):
                raise _corrupt(path, "has no model.weights.h5 in it")
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, EOFError, OSError) as error:
        raise _corrupt(path, f"is truncated or no Keras file ({error})") from error
    _refuse_code(path, config)


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    parts = re.split(r"[/\\]", member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or link:
        raise PathEscapeError(
            f"{path} has the member '{member.filename}', which would lie outside" + " (a link)" * link,
            expected="metadata.json, config.json, model.weights.h5 and assets/",
            mend="do not trust this file; save the model again with model.save",
        )


def _refuse_code(path: Path, value: Any) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        elif isinstance(item, dict):
            if item.get("class_name") in ("Lambda", "__lambda__"):
                config = item.get("config")
                named = config.get("name") if isinstance(config, dict) else None
                raise _code(path, f"the layer '{named}'" if named else "a layer")
            todo += item.values()


def _code(path: Path, layer: str) -> UnsafeSourceError:
    return UnsafeSourceError(
        f"{path}: {layer} is a Lambda: it carries Python code, which loading it would run",
        expected="layers of Keras alone",
        mend="export a SavedModel where the code is yours: model.export(folder)",
    )


def _corrupt(path: Path, what: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} {what}", expected="what model.save('model.keras') writes", mend="save or copy it again"
    )
