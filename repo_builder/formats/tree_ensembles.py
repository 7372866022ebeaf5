"""Tree ensembles as a framework: one environment for XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceCorruptError
from repo_builder.formats import framework_process
from repo_builder.formats.framework_process import Framework, Progress
from repo_builder.tensors import TensorSpec

SCIKIT_LEARN = "1.9.1" if sys.version_info >= (3, 11) else "1.7.2"
"""1.7 is the last that Python 3.10 has wheels of."""
# xgboost-cpu is XGBoost without the libraries of a GPU; onnxmltools takes its model's classes from the same package.
FRAMEWORK = Framework(
    "trees",
    (
        "xgboost-cpu==3.2.0",
        "lightgbm==4.7.0",
        "catboost==1.2.10",
        "onnxmltools==1.16.0",
        "skl2onnx==1.20.0",
        f"scikit-learn=={SCIKIT_LEARN}",
        "skops==0.14.0",
        "onnx==1.20.1",
        "numpy==2.2.6",
    ),
    "trees_worker.py",
    variables={"OMP_NUM_THREADS": "1"},
)


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the signature that its framework tells."""
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The framework's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def examples(artifact: Artifact) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Inputs at, below and above the model's own thresholds, as the worker makes them."""
    return framework_process.of(FRAMEWORK, artifact).examples()


def artifact(path: Path, name: str, inputs: Sequence[TensorSpec]) -> Artifact:
    """A file of ``name``, without a signature: ``opened`` tells it."""
    return Artifact(path, name, tuple(inputs), files=(path.name,), facts={"kind": name})


def corrupt(path: Path, what: str, wrote: str) -> SourceCorruptError:
    """The error for a file that is not what ``wrote`` writes."""
    return SourceCorruptError(f"{path} {what}", expected=f"what {wrote} writes", mend="save or copy it again")
