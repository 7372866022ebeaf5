"""Samples of zero-shot classification that its reference refuses: the message names the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder.errors import SpecError
from repo_builder.formats import huggingface
from repo_builder.spec import ModelSpec
from repo_builder.tasks import zero_shot_classification
from tests import tiny_transformers

pytestmark = pytest.mark.torch


def test_an_empty_text_is_the_samples_fault(tmp_path: Path) -> None:
    source = huggingface.describe(tiny_transformers.save("bert", "nli", tmp_path / "nli"))
    rows = [{"TEXT": text, "CANDIDATE_LABELS": ["soup", "snow"]} for text in ("a kettle", "")]
    model = ModelSpec(source=str(source.path), samples={"texts": rows})
    with pytest.raises(SpecError) as refused:
        zero_shot_classification.proof(model, source, source, None)
    assert "samples.texts[1] has an empty TEXT\n  expected: a text" in str(refused.value)
    fine = model.model_copy(update={"samples": model.samples.model_copy(update={"texts": tuple(rows[:1])})})
    assert len(zero_shot_classification.proof(fine, source, source, None).cases) == 1
