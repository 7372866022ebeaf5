"""What is refused before anything is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder import pipeline, spec
from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError, RepoBuilderError, SourceMissingError, SpecError, TargetError
from repo_builder.pipeline import asked
from repo_builder.tensorrt import installation
from tests import models


def planned(folder: Path, **fields: Any) -> pipeline.Result:
    source = models.linear_onnx(folder / "linear.onnx")
    return pipeline.build(source, folder / "out", dry_run=True, **fields)


def refused(folder: Path, **fields: Any) -> RepoBuilderError:
    result = planned(folder, **fields)
    assert not result.steps
    return result.failed["linear"]


def test_an_engine_that_no_converter_leads_to(tmp_path: Path) -> None:
    error = refused(tmp_path, engine="torchscript")
    assert isinstance(error, ConversionError)
    assert str(error).startswith(
        "linear: describe: nothing converts onnx to torchscript\n  expected: onnx to onnx or tensorrt\n"
    )


def test_a_field_that_the_target_does_not_know(tmp_path: Path) -> None:
    error = refused(tmp_path, target="24.10", config={"model_metrics": {}})
    assert isinstance(error, TargetError)
    assert "release 24.10 (server 2.51.0) does not know model_metrics" in str(error)
    assert "target 24.11 or newer" in str(error)


def test_a_field_that_no_config_has(tmp_path: Path) -> None:
    error = refused(tmp_path, config={"max_batchsize": 3})
    assert isinstance(error, SpecError)
    assert "config has the key 'max_batchsize'" in str(error)
    assert "did you mean 'max_batch_size'?" in str(error)


def test_a_backend_that_the_target_lacks(tmp_path: Path) -> None:
    error = refused(tmp_path, target="26.08", config={"backend": "tensorflow"})
    assert isinstance(error, TargetError)
    assert "no image of release 26.08 has" in str(error)


def test_overrides_that_only_the_whole_config_can_judge_pass(tmp_path: Path) -> None:
    """A null needs what it clears; it is judged when the config is there."""
    result = planned(tmp_path, config={"dynamic_batching": None, "sequence_batching": {}, "parameters": {"x": None}})
    assert not result.failed
    assert [step.why for step in result.steps] == ["onnx files carry no task"]


def test_generation_makes_no_plans(tmp_path: Path) -> None:
    model = spec.from_flags("t5", engine="tensorrt").models[0]
    with pytest.raises(ConversionError, match="the task text2text-generation makes no TensorRT plans"):
        asked.check(model, Artifact(tmp_path, "huggingface"), "text2text-generation")
    asked.check(model, Artifact(tmp_path, "huggingface"), "sentence-embedding")


def test_instances_of_a_plan_on_the_cpu_are_refused_before_anything_is_converted(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="kind is cpu, and a TensorRT plan runs on GPUs only"):
        planned(tmp_path, engine="tensorrt", instances={"count": 1, "kind": "cpu"})
    error = refused(tmp_path, engine="tensorrt", config={"instance_group": [{"kind": "KIND_CPU"}]})
    assert isinstance(error, SpecError)
    assert "instance_group has KIND_CPU, and a TensorRT plan runs on GPUs only" in str(error)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says of itself that it has TensorRT 8.6.1 and a GPU; nothing is built with it."""
    gpu = installation.Gpu("NVIDIA H100", "9.0", "580", 1 << 30)
    found = installation.Installation(Path("python"), "tensorrt", "8.6.1", gpu)
    monkeypatch.setattr(installation, "find", lambda: found)
    monkeypatch.setattr(installation, "builder", lambda: found)


@pytest.mark.usefixtures("tensorrt")
def test_plugin_libraries_must_be_there(tmp_path: Path) -> None:
    options: dict[str, Any] = {"version_compatible": True, "plugins": [str(tmp_path / "libmine.so")]}
    error = refused(tmp_path, engine="tensorrt", tensorrt=options)
    assert isinstance(error, SourceMissingError)
    assert f"there is no plugin library {tmp_path / 'libmine.so'}" in str(error)
    (tmp_path / "libmine.so").write_bytes(b"a library")
    assert not planned(tmp_path, engine="tensorrt", tensorrt=options).failed


@pytest.mark.usefixtures("tensorrt")
def test_the_key_holds_plugins_by_name_and_content_wherever_they_lie(tmp_path: Path) -> None:
    def key(folder: str, content: bytes, name: str = "libmine.so") -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        (step,) = planned(tmp_path, engine="tensorrt", tensorrt={"plugins": [str(path)]}).steps
        return step.key

    first = key("here", b"1")
    assert key("there", b"1") == first
    assert key("here", b"2") != first
    assert key("here", b"1", "libother.so") != first
