"""LightGBM's own files (``.txt``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.formats import source_file, tree_ensembles
from repo_builder.tensors import TensorSpec

NAME = "lightgbm"
TAKES = "a LightGBM model (.txt)"
FRAMEWORK = tree_ensembles.FRAMEWORK
RUNTIME = "LightGBM 4.7 on the CPU, in a process of its own"
opened, run, examples = tree_ensembles.opened, tree_ensembles.run, tree_ensembles.examples
_WROTE = "booster.save_model('model.txt')"
_FIRST = re.compile(rb"tree\r?\nversion=v\d")


def matches(path: Path) -> bool:
    """By suffix and by its first lines."""
    return path.suffix.lower() == ".txt" and bool(_FIRST.match(source_file.head(path, 32)))


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it.

    Raises:
        SourceMissingError, SourceCorruptError: missing, truncated, or no such file.
    """
    source_file.refuse_stand_ins(path)
    content = path.read_bytes()
    if not _FIRST.match(content):
        raise tree_ensembles.corrupt(path, "does not begin as a model does", _WROTE)
    sizes = re.search(rb"^tree_sizes=([\d ]*)\r?$", content, re.MULTILINE)
    trees = len(re.findall(rb"^Tree=\d+\r?$", content, re.MULTILINE))
    told = len(sizes[1].split()) if sizes else 0
    if trees != told or b"\nend of trees" not in content:
        raise tree_ensembles.corrupt(
            path, f"is truncated: {trees} of {told} trees are there, or not to their end", _WROTE
        )
    return tree_ensembles.artifact(path, NAME, inputs)
