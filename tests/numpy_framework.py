"""The stand-in framework of ``numpy_worker.py`` as a format; tests register it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats import framework_process
from repo_builder.formats.framework_process import Framework
from repo_builder.tensors import TensorSpec

NAME, TAKES, RUNTIME = "numpy_json", "a numpy model (.npmodel)", "numpy, in a process of its own"
FRAMEWORK = Framework("numpy-json", (), Path(__file__).parent / "numpy_worker.py", otherwise={"SUMS": "otherwise"})


def matches(path: Path) -> bool:
    return path.suffix == ".npmodel"


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    return Artifact(path, NAME, tuple(inputs), files=(path.name,), facts={"kind": "json", "options": {"a": 1}})


def opened(artifact: Artifact, progress: Callable[[str], None] | None = None) -> Artifact:
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def save(path: Path, **more: Any) -> Path:
    """A model with 3 inputs and 2 outputs; ``more`` makes it misbehave."""
    weights = np.random.default_rng(0).standard_normal((3, 2)).round(3).tolist()
    path.write_text(json.dumps({"weights": weights, **more}))
    return path
