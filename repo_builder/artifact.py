"""Artifact: one model file or folder as a value that crosses the stages of a build."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceMissingError
from repo_builder.tensors import TensorSpec


@dataclass(frozen=True)
class Artifact:
    """One model: where it is, in what format, with which tensors, and how it came to be.

    Attributes:
        path: the file or folder (for ``factory``: the Python file).
        format: name in ``repo_builder.formats.FORMATS``.
        inputs, outputs: the signature; empty where the format does not know it before a task decides (Hugging Face).
        batch: the symbolic name of axis 0 where every input and output starts with one batch dimension, else None.
        files: every file that belongs to the model (external data included), relative to ``path``'s folder.
        facts: what the format knows more (opset, ir_version, architecture, ...); JSON values only.
        provenance: how it was made (exporter, attempts, versions); JSON values only; empty for a source.
    """

    path: Path
    format: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batch: str | None = None
    files: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def digest(self) -> str:
        """sha256 over names and content of ``files``."""
        return files_digest(self.folder, self.files)


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_digest(folder: Path, files: Iterable[str]) -> str:
    """sha256 over the sorted relative names and the contents of ``files``."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{file_digest(folder / name)}\0".encode())
    return digest.hexdigest()


def tree_files(folder: Path) -> tuple[str, ...]:
    """Relative POSIX paths of all files under ``folder``, sorted; hidden folders and ``__pycache__`` are left out."""
    if not folder.is_dir():
        raise SourceMissingError(f"there is no folder {folder}")
    found: list[str] = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f != "__pycache__" and not f.startswith("."))
        found.extend((Path(here) / name).relative_to(folder).as_posix() for name in names)
    return tuple(sorted(found))
