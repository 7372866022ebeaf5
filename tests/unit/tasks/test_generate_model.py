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


def answered(served: Any, monkeypatch: pytest.MonkeyPatch, *requests: Any, sampling: bool, bad: Any = np.nan) -> Any:
    """The responses, with a stand-in for encoder and decoder whose second scores of texts of two tokens are bad."""

    def call(model: str, inputs: list[Any], outputs: list[str]) -> list[Any]:
        given = {tensor.name(): tensor.as_numpy() for tensor in inputs}
        if model == "e":
            return [stand_in.Tensor("cross", np.zeros((len(given["input_ids"]), 2, 1, 2, 1), np.float32))]
        past, scores = given["past"], np.zeros((len(given["past"]), 6), np.float32)
        scores[:, 4] = 30
        if past.shape[3] == 2:
            scores[given["attention_mask"].sum(axis=1) == 2, 1:3] = bad
        return [
            stand_in.Tensor("logits", scores),
            stand_in.Tensor("present", np.pad(past, ((0, 0),) * 3 + ((0, 1),) + ((0, 0),))),
        ]

    monkeypatch.setitem(type(served)._generate.__globals__, "_call", call)
    monkeypatch.setattr(served.tokens, "decode", lambda rows: ["text"] * len(rows))
    served.fields["do_sample"] = sampling
    served.inputs = {"TEXT"}
    return served.execute([stand_in.request(texts) for texts in requests])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [False, True])
def test_scores_that_are_not_finite_fail_their_own_request_alone(
    served: Any, monkeypatch: pytest.MonkeyPatch, sampling: bool, bad: float
) -> None:
    answers = answered(served, monkeypatch, ["dog"], ["dog", "cat dog"], ["cat"], sampling=sampling, bad=bad)
    assert [answer.error and answer.error.code for answer in answers] == [None, stand_in.TritonError.INTERNAL, None]
    assert str(answers[1].error) == ("text 1: the decoder's scores of token 2 are not finite (NaN or infinity)")
    for answer in (answers[0], answers[2]):
        assert answer.arrays["OUTPUT_IDS"].tolist() == [[0, *[4] * 7]]


def test_a_model_that_fails_is_not_blamed_on_a_request_that_is_wrong(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(served)._generate.__globals__

    def failing(model: str, inputs: list[Any], outputs: list[str]) -> list[Any]:
        raise module["pb_utils"].TritonModelException(f"{model}: out of memory")

    monkeypatch.setitem(module, "_call", failing)
    served.inputs = {"TEXT"}
    answers = served.execute([stand_in.request(["dog"]), stand_in.request([b"\xff"])])
    assert [answer.error.code for answer in answers] == [
        stand_in.TritonError.INTERNAL,
        stand_in.TritonError.INVALID_ARG,
    ]
    assert str(answers[0].error) == "e: out of memory"
    assert "is not UTF-8" in str(answers[1].error)


def test_a_text_that_the_tokenizer_fails_on_is_refused_and_others_are_not(served: Any) -> None:
    assert job(served, ["bird"]).startswith("input 'TEXT' cannot be encoded: WordLevel error: Missing [UNK] token")
    assert [tokens for tokens, _ in job(served, ["cat dog", "dog"])] == [[2, 3], [3]]


@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (2,), (2, 2)])
def test_an_option_has_a_value_for_every_text(shape: tuple[int, ...], served: Any) -> None:
    asked = {**stand_in.request(["cat", "dog"]), "MAX_NEW_TOKENS": np.ones(shape, np.int32)}
    served.inputs = set(asked)
    said = f"input 'MAX_NEW_TOKENS' has shape {list(shape)}, expected [2, 1]: one value in each row"
    assert served._job(asked) == said


@pytest.mark.parametrize("temperature", [np.inf, np.nan, 0, -1])
def test_temperatures_that_nothing_can_be_divided_by(temperature: float, served: Any) -> None:
    said = job(served, ["cat"], DO_SAMPLE=True, TEMPERATURE=np.float32(temperature))
    assert said == f"input 'TEMPERATURE' is {float(temperature)}, expected more than 0, and finite"
