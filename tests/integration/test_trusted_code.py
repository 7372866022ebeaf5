"""A model of the folder's own code: the reference runs it where it is trusted, as the conversion does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from repo_builder.errors import UnsafeSourceError
from repo_builder.formats import huggingface, huggingface_model
from tests import tiny_transformers

pytestmark = pytest.mark.torch

CODE = """
from transformers import BertConfig, BertForSequenceClassification


class OwnConfig(BertConfig):
    model_type = "own"


class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tiny_transformers.save("bert", "sequence-classification", tmp_path / "own")
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "architectures": ["OwnForSequenceClassification"], "auto_map": CLASSES}
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (made / "own.py").write_text(CODE, encoding="utf-8")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", os.fspath(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made


def test_code_that_is_not_trusted_is_refused(folder: Path) -> None:
    with pytest.raises(UnsafeSourceError, match="asks for code of its own"):
        huggingface.describe(folder)


def test_the_pipeline_of_the_reference_runs_trusted_code(folder: Path) -> None:
    classify = huggingface_model.pipeline("text-classification", huggingface.describe(folder, trust_remote_code=True))
    assert type(classify.model).__name__ == "OwnForSequenceClassification"
    assert classify.model.config.model_type == "own"
    assert len(classify("a kettle", top_k=None)) == 3
