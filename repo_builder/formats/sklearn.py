"""Estimators of scikit-learn: pickles (``.pkl``, ``.pickle``, ``.joblib``) that the user trusts, and ``.skops``."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import UnsafeSourceError
from repo_builder.formats import framework_process, source_file, tree_ensembles
from repo_builder.formats.framework_process import Progress
from repo_builder.tensors import TensorSpec

NAME = "sklearn"
TAKES = "a scikit-learn estimator (.skops, or a pickle that you trust: .joblib, .pkl, .pickle)"
FRAMEWORK = dataclasses.replace(tree_ensembles.FRAMEWORK, worker="sklearn_worker.py")
RUNTIME = f"scikit-learn {tree_ensembles.SCIKIT_LEARN} on the CPU, in a process of its own"
PICKLES = True
_SUFFIXES = (".pkl", ".pickle", ".joblib")


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() in (*_SUFFIXES, ".skops") and not path.is_dir()


def describe(path: Path, inputs: Sequence[TensorSpec] = (), *, trust_pickle: bool = False) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it. Nothing is opened here.

    Args:
        trust_pickle: a pickle may be opened later.

    Raises:
        UnsafeSourceError: a pickle without ``trust_pickle``.
        SourceMissingError, SourceCorruptError: missing, empty, or no skops file.
    """
    source_file.refuse_stand_ins(path)
    if path.suffix.lower() == ".skops":
        if not zipfile.is_zipfile(path):
            raise tree_ensembles.corrupt(path, "is no zip archive, or truncated", "skops.io.dump(model, path)")
        return dataclasses.replace(tree_ensembles.artifact(path, NAME, inputs), facts={"kind": "skops"})
    if not trust_pickle:
        raise UnsafeSourceError(
            f"{path} is a pickle: opening it runs whatever code is in it, so it was not opened",
            expected="a file without code: .skops (skops.io.dump), ONNX (skl2onnx.to_onnx), or the save_model of "
            "XGBoost, LightGBM and CatBoost",
            mend="if you made it, or trust who did: build with --trust-pickle, or trust_pickle: true in the spec",
        )
    facts = {"kind": "pickle", "options": {"trusted": True}}
    return dataclasses.replace(tree_ensembles.artifact(path, NAME, inputs), facts=facts)


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the signature that its framework tells."""
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """scikit-learn's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def examples(artifact: Artifact) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Inputs that try the estimator: thresholds, categories, values as it was fitted with."""
    return framework_process.of(FRAMEWORK, artifact).examples()
