"""The model.py that joins tokens into entities, against TokenClassificationPipeline on random scores."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import pytest

from repo_builder.errors import SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks import token_classification
from tests import tiny_tokenizers

pytestmark = pytest.mark.torch
ENTITIES = Path(token_classification.__file__).parents[1] / "templates" / "entities" / "model.py"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-GEO-POL", "I-GEO-POL")
FAMILIES = ("bert", "bert-cased", "roberta", "xlm-roberta", "modernbert", "deberta-v2", "gpt2")
WORDS = (
    *("Angela", "lives", "in", "Zürich", "naïve", "CO2-neutral", "don't", "U.S.A.", "x", "[SEP]", "<mask>", "##ing"),
    *(
        "北京大学",
        "東京タワー",
        "한국어",
        "שלום",
        "مرحبا",
        "नमस्ते",
        "สวัสดี",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301te\u0301",
        "ß",
        "\u200b",
        "\t",
        "\n",
    ),
)


def texts() -> list[str]:
    """Built-in samples and random rows of words in all scripts, with and without spaces between them."""
    rng = random.Random(0)
    made = ["".join(rng.choice(WORDS) + rng.choice((" ", " ", "", "  ")) for _ in range(rng.randint(1, 12)))
            for _ in range(24)]  # fmt: skip
    return ["", " ", *made, *tiny_tokenizers.TEXTS[::4]]


@functools.lru_cache
def pipeline(family: str) -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    config.id2label = dict(enumerate(LABELS))
    model = transformers.BertForTokenClassification(config)
    return transformers.TokenClassificationPipeline(model=model, tokenizer=tiny_tokenizers.make(family), device="cpu")


def served(family: str, folder: Path, **parameters: str) -> Any:
    tokenizer = pipeline(family).tokenizer
    (folder / "1").mkdir()
    (folder / "1" / "model.py").symlink_to(ENTITIES)
    (folder / "1" / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    if tokenizer.unk_token_id is not None:
        parameters["unk_id"] = str(tokenizer.unk_token_id)
    values = {"labels": json.dumps(LABELS), **parameters}
    return stand_in.load(folder, {"parameters": {key: {"string_value": value} for key, value in values.items()}})


def scored(text: str, tokenizer: Any, rng: Any) -> dict[str, Any]:
    """The outputs of a classifier that is sure of some tokens and torn about others."""
    import torch

    found = tokenizer(
        text, return_tensors="pt", truncation=True, return_special_tokens_mask=True, return_offsets_mapping=True
    )
    tokens = found["input_ids"].shape[1]
    logits = rng.standard_normal((1, tokens, len(LABELS))) * rng.choice((0.5, 2.0, 6.0), (1, tokens, 1))
    logits[..., 0] += rng.choice((0.0, 3.0))
    return {**found, "logits": torch.tensor(logits.astype(np.float32)), "sentence": text,
            "offset_mapping": found["offset_mapping"]}  # fmt: skip


def request(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows as one request, padded to the right as the tokenizer model pads."""
    longest = max(1, *(row["input_ids"].shape[1] for row in rows))
    arrays = {
        "input_ids": np.zeros((len(rows), longest), np.int64),
        "special_tokens_mask": np.ones((len(rows), longest), np.int32),
        "offsets": np.zeros((len(rows), longest, 2), np.int32),
        "scores": np.full((len(rows), longest, len(LABELS)), 1 / len(LABELS), np.float32),
    }
    for number, row in enumerate(rows):
        length = row["input_ids"].shape[1]
        given = {**row, "offsets": row["offset_mapping"], "scores": row["logits"].softmax(-1)}
        for name, array in arrays.items():
            array[number, :length] = given[name][0].numpy()
    return {"TEXT": np.array([[row["sentence"].encode()] for row in rows], dtype=object), **arrays}


def entities(answer: Any, row: int) -> list[tuple[Any, ...]]:
    """The entities of a row; behind the first padding there is nothing."""
    columns = [answer.arrays[name][row].tolist() for name in ("ENTITIES", "WORDS", "STARTS", "ENDS", "SCORES")]
    found = [tuple(values) for values in zip(*columns, strict=True)]
    real = [one for one in found if one[0]]
    assert found == real + [(b"", b"", 0, 0, 0.0)] * (len(found) - len(real))
    return real


@pytest.mark.parametrize("strategy", token_classification.STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_the_pipelines(family: str, strategy: str, tmp_path: Path) -> None:
    from transformers.pipelines.token_classification import AggregationStrategy

    source, rng = pipeline(family), np.random.default_rng(0)
    rows = [row for text in texts() if (row := scored(text, source.tokenizer, rng))["input_ids"].numel()]
    model = served(family, tmp_path, aggregation_strategy=strategy)
    (answer,) = model.execute([request(rows)])
    count = 0
    for number, row in enumerate(rows):
        expected = source.postprocess([row], AggregationStrategy(strategy))
        found = entities(answer, number)
        count += len(found)
        key = "entity" if strategy == "none" else "entity_group"
        assert [one[:4] for one in found] == [
            (one[key].encode(), one["word"].encode(), one["start"], one["end"]) for one in expected
        ], row["sentence"]
        np.testing.assert_allclose([one[4] for one in found], [one["score"] for one in expected], atol=1e-6)
    assert count > 100
    assert answer.arrays["ENTITIES"].shape[1] == max(len(entities(answer, n)) for n in range(len(rows)))


def test_other_labels_may_be_ignored(tmp_path: Path) -> None:
    from transformers.pipelines.token_classification import AggregationStrategy

    source, rng = pipeline("bert"), np.random.default_rng(1)
    rows = [scored(text, source.tokenizer, rng) for text in texts()]
    (answer,) = served("bert", tmp_path, ignore_labels='["LOC", "PER"]').execute([request(rows)])
    found = {one[0] for number in range(len(rows)) for one in entities(answer, number)}
    assert found == {b"O", b"MISC", b"GEO-POL"}
    for number, row in enumerate(rows):
        expected = source.postprocess([row], AggregationStrategy.SIMPLE, ["LOC", "PER"])
        assert [one[1].decode() for one in entities(answer, number)] == [one["word"] for one in expected]


def test_a_request_without_entities_has_one_column_of_padding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (answer,) = served("bert", tmp_path).execute([request([scored("", pipeline("bert").tokenizer, rng)])])
    assert {name: array.tolist() for name, array in answer.arrays.items()} == {
        "ENTITIES": [[b""]], "WORDS": [[b""]], "SCORES": [[0.0]], "STARTS": [[0]], "ENDS": [[0]],
    }  # fmt: skip
    kinds = [answer.arrays[name].dtype for name in ("SCORES", "STARTS", "ENDS")]
    assert kinds == [np.float32, np.int32, np.int32]


def test_text_that_is_not_utf8_is_refused_alone(tmp_path: Path) -> None:
    fine = request([scored("Angela lives in Zürich", pipeline("bert").tokenizer, np.random.default_rng(0))])
    bad = {**fine, "TEXT": np.array([[b"sea\xff!"]], dtype=object)}
    answers = served("bert", tmp_path).execute([fine, bad, fine])
    assert answers[1].error.code == stand_in.TritonError.INVALID_ARG
    assert "input 'TEXT' is not UTF-8: 'utf-8' codec can't decode byte 0xff in position 3" in str(answers[1].error)
    assert entities(answers[0], 0) == entities(answers[2], 0) != []


def test_an_unknown_strategy_is_refused_when_the_model_is_loaded_and_before_that_by_the_build(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameter 'aggregation_strategy' is 'frist', expected one of: simple, none"):
        served("bert", tmp_path, aggregation_strategy="frist")
    step = {"postprocess": {"parameters": {"aggregation_strategy": "frist"}}}
    with pytest.raises(SpecError) as caught:
        token_classification.strategy(ModelSpec(source="x", step_configs=step))
    assert str(caught.value) == (
        "step_configs: postprocess: aggregation_strategy is 'frist' (did you mean 'first'?)\n"
        "  expected: one of none, simple, first, average, max\n"
        "  to mend it: correct it in the spec"
    )


def test_labels_to_ignore_are_a_json_list() -> None:
    def asked(value: str) -> ModelSpec:
        return ModelSpec(source="x", step_configs={"postprocess": {"parameters": {"ignore_labels": value}}})

    assert token_classification.ignored_labels(ModelSpec(source="x")) == ["O"]
    assert token_classification.ignored_labels(asked('["O", "MISC"]')) == ["O", "MISC"]
    for wrong in ("O", "[1]", '"O"'):
        with pytest.raises(SpecError, match="expected: a JSON list of labels, for example"):
            token_classification.ignored_labels(asked(wrong))
