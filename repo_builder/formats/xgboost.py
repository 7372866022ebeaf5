"""XGBoost's own files: ``.json`` and ``.ubj``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.formats import source_file, tree_ensembles
from repo_builder.tensors import TensorSpec

NAME = "xgboost"
TAKES = "an XGBoost model (.json, .ubj)"
FRAMEWORK = tree_ensembles.FRAMEWORK
RUNTIME = "XGBoost 3.2 on the CPU, in a process of its own"
opened, run, examples = tree_ensembles.opened, tree_ensembles.run, tree_ensembles.examples
_WROTE = "booster.save_model('model.json')"
_HEAD = 64


def matches(path: Path) -> bool:
    """By suffix; a .json also by its first key."""
    if path.is_dir() or path.suffix.lower() not in (".json", ".ubj"):
        return False
    return path.suffix.lower() == ".ubj" or b'"learner"' in source_file.head(path, _HEAD).replace(b" ", b"")


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or no such file.
    """
    source_file.refuse_stand_ins(path)
    if path.suffix.lower() == ".json":
        learner = source_file.read_json(path).get("learner")
        if not isinstance(learner, dict) or "gradient_booster" not in learner:
            raise tree_ensembles.corrupt(path, "holds no learner with a gradient_booster", _WROTE)
        return tree_ensembles.artifact(path, NAME, inputs)
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        file.seek(-1, 2)
        whole = file.read() == b"}"
    if not head.startswith(b"{") or b"learner" not in head:
        raise tree_ensembles.corrupt(path, "is no UBJSON of a learner", _WROTE.replace("json", "ubj"))
    if not whole:
        raise tree_ensembles.corrupt(path, "is truncated: it does not end where its object ends", _WROTE)
    return tree_ensembles.artifact(path, NAME, inputs)
