"""Ranges of axes that a model has, but that nothing follows, are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.pipeline import unit
from repo_builder.spec import ModelSpec
from repo_builder.tensors import TensorSpec

WINDOWS = Artifact(
    Path("model.onnx"), "onnx", inputs=(TensorSpec("input_ids", "INT64", ("batch", "windows", "sequence")),)
)


def asked(axis: str) -> ModelSpec:
    return ModelSpec(source="m", shapes={axis: {"min": 1, "opt": 2, "max": 3}})


def test_ranges_of_texts_follow_the_batch_and_the_tokens_alone() -> None:
    for axis in ("batch", "sequence"):
        unit._check_axes(asked(axis), WINDOWS, unit._TEXT_AXES)
    with pytest.raises(SpecError, match="no dynamic axis 'windows' that a range has an effect on") as refused:
        unit._check_axes(asked("windows"), WINDOWS, unit._TEXT_AXES)
    assert refused.value.expected == "one of batch, sequence"


def test_ranges_of_plain_tensors_are_those_of_every_axis() -> None:
    unit._check_axes(asked("windows"), WINDOWS)
    with pytest.raises(SpecError, match=r"no dynamic axis 'window' \(did you mean 'windows'\?\)"):
        unit._check_axes(asked("window"), WINDOWS)
