"""The generating model.py: what is wrong with one request is said of that request alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

TEMPLATE = Path(__file__).parents[3] / "templates" / "generate"
FIELDS = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": [1], "max_length": 8}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The model with a tokenizer of two words and no unknown token, so that it fails on any other word."""
    (tmp_path / "1").mkdir()
    for file in TEMPLATE.glob("*.py"):
        (tmp_path / "1" / file.name).write_bytes(file.read_bytes())
    words = Tokenizer(models.WordLevel({"cat": 2, "dog": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "1" / "tokenizer.json").write_text(words.to_str(), encoding="utf-8")
    parameters = {"encoder": "e", "decoder": "d", **{name: json.dumps(value) for name, value in FIELDS.items()}}
    config = {
        "input": [{"name": "TEXT"}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    for name in ("search", "texts", "charsmap"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield stand_in.load(tmp_path, config)
    for name in ("search", "texts", "charsmap"):
        sys.modules.pop(name, None)


def job(served: Any, texts: list[Any], **options: Any) -> Any:
    """What becomes of a request; the stand-in knows no inputs that are left out, so the model is told of none."""
    given = {**stand_in.request(texts), **{name: np.array([[value]]) for name, value in options.items()}}
    served.inputs = set(given)
    return served._job(given)


def test_a_text_that_the_tokenizer_fails_on_is_refused_and_others_are_not(served: Any) -> None:
    assert job(served, ["bird"]).startswith("input 'TEXT' cannot be encoded: WordLevel error: Missing [UNK] token")
    assert [tokens for tokens, _ in job(served, ["cat dog", "dog"])] == [[2, 3], [3]]


@pytest.mark.parametrize("temperature", [np.inf, np.nan, 0, -1])
def test_temperatures_that_nothing_can_be_divided_by(temperature: float, served: Any) -> None:
    said = job(served, ["cat"], DO_SAMPLE=True, TEMPERATURE=np.float32(temperature))
    assert said == f"input 'TEMPERATURE' is {float(temperature)}, expected more than 0, and finite"
