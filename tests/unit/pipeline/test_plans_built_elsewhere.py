"""A repository whose plans another machine's GPU built, on a machine without one; its TensorRT is a named double."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from repo_builder import pipeline, releases
from repo_builder.errors import TensorRTMissingError
from repo_builder.pipeline import calls, unit
from repo_builder.proof import Case, Proof
from repo_builder.repository.layout import Layout
from repo_builder.repository.manifest import Manifest, UnitRecord
from repo_builder.tensorrt import installation
from repo_builder.tensorrt.installation import Gpu, Installation
from tests import models

H100 = Installation(Path("/none"), "tensorrt", "8.6.1", Gpu("NVIDIA H100", "9.0", "580", 80))
FACTS = {"format": "tensorrt_plan", "tensorrt": "8.6.1", "gpu": "NVIDIA H100", "compute_capability": "9.0"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a build on the H100 leaves in the manifest; the machine now has no GPU."""
    models.linear_onnx(tmp_path / "linear.onnx")
    monkeypatch.setattr(installation, "find", lambda: H100)
    (model,) = pipeline.resolve(tmp_path / "linear.onnx", engine="tensorrt").models
    key = unit.key(model, unit.describe(model), releases.newest(), "tensors")
    layout = Layout.of(tmp_path / "r")
    layout.repository.mkdir()
    layout.build.mkdir()
    record = UnitRecord(key, ("linear",), 1, {}, None, {"engine": FACTS})
    layout.manifest.write_text(Manifest({"linear": record}).text(), encoding="utf-8")
    monkeypatch.setattr(installation, "find", lambda: None)
    return tmp_path / "r"


def build(repository: Path, **changes: Any) -> pipeline.Result:
    source = repository.with_name("linear.onnx")
    return pipeline.build(source, repository, engine="tensorrt", verify=False, dry_run=True, **changes)


def test_without_a_gpu_a_repository_built_elsewhere_is_unchanged(repository: Path) -> None:
    (step,) = build(repository).steps
    assert step.unchanged


def test_another_gpu_builds_its_own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t4 = Installation(Path("/none"), "tensorrt", "8.6.1", Gpu("Tesla T4", "7.5", "580", 16))
    monkeypatch.setattr(installation, "find", lambda: t4)
    monkeypatch.setattr(installation, "builder", lambda: t4)
    (step,) = build(repository).steps
    assert not step.unchanged


def test_what_would_change_the_plan_is_refused_there(repository: Path) -> None:
    result = build(repository, precision="fp16")
    error = result.failed["linear"]
    assert isinstance(error, TensorRTMissingError)
    assert "a plan is built on the GPU that runs it" in error.expected


def test_the_reference_is_computed_again_without_building_a_plan(repository: Path) -> None:
    profile = {"x": {kind: [rows, 4] for kind, rows in (("min", 1), ("opt", 2), ("max", 4))}}
    (model,) = pipeline.resolve(repository.with_name("linear.onnx"), engine="tensorrt").models
    stored = Proof("linear", (Case({"x": np.zeros((1, 4), np.float32)}, {"y": np.zeros((1, 3), np.float32)}),))
    record = UnitRecord("", ("linear",), 1, {}, None, {"engine": {**FACTS, "profiles": [profile]}})
    said: list[str] = []
    again = calls._recomputed(
        [model], {"linear": (stored, record)}, releases.newest(), lambda _name, what: said.append(what)
    )
    cases = again["linear"].cases
    assert len(cases) >= 3
    session = onnxruntime.InferenceSession(repository.with_name("linear.onnx"))
    for case in cases:
        (name,), (output,) = case.inputs, case.outputs
        np.testing.assert_array_equal(session.run([output], dict(case.inputs))[0], case.outputs[output])
        assert case.inputs[name].shape == (1, 4)
    assert not [what for what in said if "plan with" in what]
