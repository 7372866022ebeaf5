"""A model of the folder's own code: the reference runs it where it is trusted, as the conversion does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.spec import ModelSpec
from repo_builder.tasks import generation_rules, text2text_generation, tokenizer
from tests import tiny_seq2seq, tiny_transformers

pytestmark = pytest.mark.torch

CODE = """
from transformers import BertConfig, BertForSequenceClassification


class OwnConfig(BertConfig):
    model_type = "own"


class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}

T5_CODE = """
from transformers import T5Config, T5ForConditionalGeneration


class OwnT5Config(T5Config):
    model_type = "own-t5"


class OwnT5ForConditionalGeneration(T5ForConditionalGeneration):
    config_class = OwnT5Config
"""
T5_CLASSES = {"AutoConfig": "own_t5.OwnT5Config", "AutoModelForSeq2SeqLM": "own_t5.OwnT5ForConditionalGeneration"}


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders' code is copied below ``tmp_path`` alone."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", os.fspath(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def folder(tmp_path: Path, own_modules: None) -> Path:
    made = tiny_transformers.save("bert", "sequence-classification", tmp_path / "own")
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "architectures": ["OwnForSequenceClassification"], "auto_map": CLASSES}
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (made / "own.py").write_text(CODE, encoding="utf-8")
    return made


def test_code_that_is_not_trusted_is_refused(folder: Path) -> None:
    with pytest.raises(UnsafeSourceError, match="asks for code of its own"):
        huggingface.describe(folder)


def test_the_pipeline_of_the_reference_runs_trusted_code(folder: Path) -> None:
    classify = huggingface_model.pipeline("text-classification", huggingface.describe(folder, trust_remote_code=True))
    assert type(classify.model).__name__ == "OwnForSequenceClassification"
    assert classify.model.config.model_type == "own"
    assert len(classify("a kettle", top_k=None)) == 3


def test_texts_are_cut_to_the_positions_of_a_model_of_its_own_code(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "model_max_length": 10**30}), encoding="utf-8")
    positions = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    assert tokenizer.settings(folder).max_length == positions == 48


def test_an_encoder_decoder_of_its_own_code_is_generated_with(tmp_path: Path, own_modules: None) -> None:
    made = tiny_seq2seq.save("t5", tmp_path / "own_t5")
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own-t5", "architectures": ["OwnT5ForConditionalGeneration"], "auto_map": T5_CLASSES}
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (made / "own_t5.py").write_text(T5_CODE, encoding="utf-8")
    source = huggingface.describe(made, trust_remote_code=True)
    programs = text2text_generation.head(source, ModelSpec(source=str(made), trust_remote_code=True))
    assert set(programs) == {"encoder", "decoder"}
    with pytest.raises(SourceCorruptError, match="contains custom code"):
        generation_rules.rules(made)
