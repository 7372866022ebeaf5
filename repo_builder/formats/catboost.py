"""CatBoost's own files (``.cbm``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.formats import source_file, tree_ensembles
from repo_builder.tensors import TensorSpec

NAME = "catboost"
TAKES = "a CatBoost model (.cbm)"
FRAMEWORK = tree_ensembles.FRAMEWORK
RUNTIME = "CatBoost 1.2 on the CPU, in a process of its own"
opened, run, examples = tree_ensembles.opened, tree_ensembles.run, tree_ensembles.examples
_WROTE = "model.save_model('model.cbm')"


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() == ".cbm" and not path.is_dir()


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or no such file.
    """
    source_file.refuse_stand_ins(path)
    with open(path, "rb") as file:
        head = file.read(8)
    if not head.startswith(b"CBM1") or len(head) < 8:
        raise tree_ensembles.corrupt(path, "does not begin as a model does", _WROTE)
    wanted, size = 8 + int.from_bytes(head[4:], "little"), path.stat().st_size
    if size < wanted:
        raise tree_ensembles.corrupt(path, f"is truncated: {size} of {wanted} bytes are there", _WROTE)
    return tree_ensembles.artifact(path, NAME, inputs)
