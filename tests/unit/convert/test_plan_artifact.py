"""What a built plan is told to be and what it loses, with a named double of the opened plan: ONNX Runtime, rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_to_tensorrt
from repo_builder.convert.cases import CheckedCase
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx, tensorrt_plan
from repo_builder.spec import TensorRTOptions
from repo_builder.tensorrt.installation import Gpu, Installation
from repo_builder.tensors import TensorSpec

H100 = Installation(Path("/none"), "tensorrt", "8.6.1", Gpu("NVIDIA H100", "9.0", "580", 80))
IDS, SIZE = TensorSpec("ids", "INT64", ("batch", "sequence")), TensorSpec("size", "INT64", (2,))
SCORES, MASK = TensorSpec("scores", "FP32", ("batch", 3)), TensorSpec("mask", "BOOL", ("batch", "sequence"))


def tensor(name: str, dtype: str, shape: list[int], is_shape_tensor: bool = False) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "is_shape_tensor": is_shape_tensor}


def test_the_plans_own_dtypes_meet_the_names_of_the_graph(tmp_path: Path) -> None:
    source = Artifact(tmp_path / "m.onnx", "onnx", (IDS, SIZE), (SCORES, MASK), "batch")
    inspection = {
        "inputs": [tensor("size", "INT32", [2], True), tensor("ids", "INT32", [-1, -1])],
        "outputs": [tensor("mask", "BOOL", [-1, -1]), tensor("scores", "FP32", [-1, 3])],
        "profiles": [{"ids": {"min": [1, 1], "opt": [1, 8], "max": [4, 16]}}],
        "layers": {"total": 2, "by_precision": {"FP32": 2}},
    }
    answer = {"version": "8.6.1", "module": "tensorrt", "plan_bytes": 9, "strongly_typed": False}
    options = TensorRTOptions(version_compatible=True, plugins=("deep/one.so",))
    made = onnx_to_tensorrt._artifact(
        source, source, tmp_path / "model.plan", {**answer, "inspection": inspection}, H100, options
    )
    assert made.inputs == (TensorSpec("ids", "INT32", ("batch", "sequence")), TensorSpec("size", "INT32", (2,)))
    assert made.outputs == (SCORES, MASK)
    assert (made.format, made.batch, made.files) == ("tensorrt_plan", "batch", ("model.plan", "one.so"))
    assert made.facts == {
        "tensorrt": "8.6.1",
        "module": "tensorrt",
        "gpu": "NVIDIA H100",
        "compute_capability": "9.0",
        "bytes": 9,
        "profiles": inspection["profiles"],
        "layers": inspection["layers"],
        "shape_tensors": ["size"],
        "strongly_typed": False,
        "version_compatible": True,
        "hardware_compatible": False,
        "plugins": ["one.so"],
    }


@pytest.fixture
def linear(tmp_path: Path) -> Artifact:
    from tests import models

    return onnx.describe(models.linear_onnx(tmp_path / "linear.onnx"))


def cases(linear: Artifact) -> list[CheckedCase]:
    random, found = np.random.default_rng(0), []
    for _ in range(3):
        inputs = {t.name: random.standard_normal((2, *t.shape[1:])).astype(t.numpy) for t in linear.inputs}
        answers = onnx.run(linear, inputs)
        found.append(CheckedCase({}, inputs, tuple(answers[t.name] for t in linear.outputs)))
    return found


def test_the_loss_is_the_worst_of_the_cases(linear: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    given, off = cases(linear), iter((0.0, 0.5, 0.25))

    def run(_plan: Artifact, inputs: Any) -> Any:
        shift = next(off)
        return {name: array + np.float32(shift) for name, array in onnx.run(linear, inputs).items()}

    monkeypatch.setattr(tensorrt_plan, "run", run)
    (loss,) = onnx_to_tensorrt._measured(linear, given).values()
    assert loss["max_abs_error"] == pytest.approx(0.5, abs=1e-5)
    assert loss["cosine"] < 0.9999


def test_numbers_that_are_none_are_refused(linear: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_plan: Artifact, inputs: Any) -> Any:
        return {name: array * np.float32(np.nan) for name, array in onnx.run(linear, inputs).items()}

    monkeypatch.setattr(tensorrt_plan, "run", run)
    name = linear.outputs[0].name
    with pytest.raises(ConversionError, match=f"the plan answers wrongly at output {name}: .*case 0"):
        onnx_to_tensorrt._measured(linear, cases(linear))
