"""What is refused before anything is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder import pipeline, spec
from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError, RepoBuilderError, SpecError, TargetError
from repo_builder.pipeline import asked
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
        "linear: describe: nothing converts onnx to torchscript\n  expected: onnx to onnx or tensorrt_plan\n"
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


@pytest.mark.parametrize("option", [{"plugins": ["libmine.so"]}, {"version_compatible": True}])
def test_plans_that_need_options_of_the_server_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    error = refused(tmp_path, engine="tensorrt", tensorrt=option)
    assert isinstance(error, SpecError)
    assert f"tensorrt.{next(iter(option))} needs an option of the server" in str(error)
