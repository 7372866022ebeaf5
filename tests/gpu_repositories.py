"""Repositories as builds on several GPUs leave them. The plans are opaque bytes and all facts of GPUs are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder import model_config
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.repository import write
from repo_builder.repository.plan import Unit

TENSOR = {"data_type": "TYPE_FP32", "dims": [4]}


def config(name: str, backend: str, /, **fields: Any) -> Any:
    platform = {"platform": "tensorrt_plan"} if backend == "tensorrt" else {}
    tensors = {"input": [{"name": "x", **TENSOR}], "output": [{"name": "y", **TENSOR}]}
    return model_config.build({"name": name, "backend": backend, **platform, "max_batch_size": 8, **tensors, **fields})


def facts(capability: str, **engine: Any) -> dict[str, Any]:
    told = {"format": "tensorrt_plan", "tensorrt": "10.0.1.6", "compute_capability": capability, **engine}
    return {
        "source": {"format": "onnx", "sha256": "made-up"},
        "task": {"name": "tensors", "why": "asked"},
        "engine": told,
        "target": "24.10",
    }


def proof(error: float = 0.0, tolerance: float = 1e-2, value: float = 1.0) -> Proof:
    case = Case({"x": np.full((1, 4), value, np.float32)}, {"y": np.full((1, 4), 2 + error, np.float32)})
    return Proof("m", (case,), tolerances={"y": Tolerance(max_abs_error=tolerance)}, reference="made up")


def build(
    folder: Path,
    capability: str,
    plan: bytes | None = None,
    *,
    engine: Mapping[str, Any] | None = None,
    changed: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    labels: bytes = b"a\nb\n",
    program: bytes = b"# tokenize\n",
    proven: Proof | None = None,
    kind: str = "KIND_GPU",
    beside: Sequence[Unit] = (),
) -> Path:
    """A unit ``m`` of a Python model and a plan, as a build on a GPU of that compute capability would write it."""
    instances = {"instance_group": [{"count": 1, "kind": kind}]}
    models = (
        PlannedModel(config("m", "python", **(tokenizer or {})), {"model.py": program, "vocabulary": b"a"}),
        PlannedModel(
            config("m_encoder", "tensorrt", **{**instances, **(encoder or {})}),
            {"model.plan": plan or f"plan for {capability}".encode()},
            {"labels.txt": labels},
        ),
    )
    told = {**facts(capability, **(engine or {})), **(changed or {})}
    unit = Unit("m", f"key of {capability}", models, proven or proof(), told)
    report = {"model": "m", "passed": True, "failures": [], "limits": [f"measured on {capability}"]}
    with write.transaction(folder) as change:
        change.stage([unit, *beside])
        change.commit({"m": report})
    return folder
