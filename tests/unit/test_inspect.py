"""``inspect`` of a model, a spec and a repository: the same rows for tensors everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repo_builder import pipeline
from repo_builder.errors import SpecError, TensorRTError, UsageError
from repo_builder.tensorrt import calls, installation, performance
from tests import models

X = {"name": "x", "dtype": "FP32", "shape": ["batch", 4]}
Y = {"name": "y", "dtype": "FP32", "shape": ["batch", 3]}


def test_a_model(tmp_path: Path) -> None:
    found = pipeline.inspect(str(models.linear_onnx(tmp_path / "linear.onnx")))
    assert (found["format"], found["inputs"], found["outputs"]) == ("onnx", [X], [Y])
    assert found["bytes"] == (tmp_path / "linear.onnx").stat().st_size


def test_a_spec(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    (tmp_path / "spec.yaml").write_text("models: [{source: linear.onnx, name: one}]\n", encoding="utf-8")
    assert pipeline.inspect(str(tmp_path / "spec.yaml")) == {
        "spec": "spec.yaml",
        "models": [{"name": "one", "format": "onnx", "task": "tensors", "inputs": [X], "outputs": [Y]}],
    }


def test_a_repository(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    pipeline.build(tmp_path / "linear.onnx", tmp_path / "r", verify=False).raise_failed()
    found = pipeline.inspect(str(tmp_path / "r"))
    assert found == {
        "repository": "r",
        "models": [{"name": "linear", "backend": "onnxruntime", "inputs": [X], "outputs": [Y]}],
    }


def test_a_repository_with_plans_tells_what_they_need_of_the_server(tmp_path: Path) -> None:
    repository = models.plan_repository(tmp_path / "r")
    assert pipeline.inspect(str(repository))["tritonserver"] == [
        "--backend-config=tensorrt,version-compatible=true",
        f"--backend-config=tensorrt,plugins={repository}/m/1/libone.so;{repository}/m/1/libtwo.so",
    ]


def test_what_only_plans_take_is_refused_elsewhere(tmp_path: Path) -> None:
    source = str(models.linear_onnx(tmp_path / "linear.onnx"))
    with pytest.raises(SpecError, match=r"linear.onnx is of format onnx"):
        pipeline.inspect(source, plugins=[tmp_path / "libone.so"])
    with pytest.raises(SpecError, match=r"linear.onnx is of format onnx"):
        pipeline.inspect(source, version_compatible=True)
    with pytest.raises(UsageError, match="--version-compatible is for plans"):
        pipeline.preflight(source, version_compatible=True)


def test_a_plan_whose_code_was_not_allowed_to_run_names_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT here is one that opens nothing; what it was asked is what counts."""
    plan = models.plan_repository(tmp_path / "r") / "m" / "1" / "model.plan"
    asked: list[Mapping[str, Any]] = []

    def call(_found: Any, _script: str, request: Mapping[str, Any]) -> Any:
        asked.append(request)
        raise TensorRTError("it does not open the plan")

    gpu = installation.Gpu("NVIDIA H100", "9.0", "580", 1 << 30)
    found = installation.Installation(Path("python"), "tensorrt", "8.6.1", gpu)
    monkeypatch.setattr(installation, "find", lambda: found)
    monkeypatch.setattr(calls, "call", call)
    one, two = plan.with_name("libone.so"), plan.with_name("libtwo.so")
    assert pipeline.inspect(str(plan))["not_opened"] == (
        f"it does not open the plan; its config says that it needs --plugin {one} --plugin {two} "
        "--version-compatible (code that comes with the plan)"
    )
    told = pipeline.inspect(str(plan), plugins=[one, two], version_compatible=True)["not_opened"]
    assert told == "it does not open the plan"
    assert [(r["plugins"], r["allow_host_code"]) for r in asked] == [([], False), ([str(one), str(two)], True)]


def test_bench_takes_what_the_config_beside_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = models.plan_repository(tmp_path / "r") / "m" / "1" / "model.plan"
    asked: list[Mapping[str, Any]] = []
    monkeypatch.setattr(installation, "builder", lambda: None)
    monkeypatch.setattr(performance, "measure", lambda _found, _plan, **how: asked.append(how))
    pipeline.bench(str(plan))
    other = tmp_path / "libtwo.so"
    pipeline.bench(str(plan), plugins=[other])
    alone = tmp_path / "model.plan"
    alone.write_bytes(plan.read_bytes())
    pipeline.bench(str(alone), plugins=[other], version_compatible=True)
    one, two = plan.with_name("libone.so"), plan.with_name("libtwo.so")
    assert [how["plugins"] for how in asked] == [[one, two], [other, one], [other]]
    assert [how["version_compatible"] for how in asked] == [True, True, True]
