"""Generation configs as parameters: lengths and ids as `generate()` resolves them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repo_builder.errors import SourceCorruptError, SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks import generation_rules, text2text_generation

pytestmark = pytest.mark.torch
IDS = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}


def folder(path: Path, generation: dict[str, Any] | None = None, **config: Any) -> Path:
    sizes = {"model_type": "bart", "vocab_size": 30, "d_model": 8, "max_position_embeddings": 64}
    (path / "config.json").write_text(json.dumps({**sizes, **config}), encoding="utf-8")
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return path


def parameters(path: Path, generation: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    found = generation_rules.rules(folder(path, generation, **config))
    return {name: json.loads(value) for name, value in found.parameters.items()}


def test_a_bare_config_gives_twenty_new_tokens_and_nothing_else(tmp_path: Path) -> None:
    wanted = {
        "decoder_start_token_id": 2,
        "eos_token_id": [2],
        "pad_token_id": 1,
        "max_length": 21,
        "max_positions": 64,
    }
    assert parameters(tmp_path, IDS) == wanted


@pytest.mark.parametrize(
    ("generation", "wanted"),
    [
        ({"max_length": 40}, {"max_length": 40}),
        ({"max_length": 20}, {"max_length": 20}),
        ({"max_new_tokens": 9, "max_length": 40}, {"max_length": 10}),
        ({"min_length": 5}, {"min_length": 5}),
        ({"min_new_tokens": 5, "min_length": 2}, {"min_length": 6}),
        ({"eos_token_id": [2, 7], "pad_token_id": None}, {"eos_token_id": [2, 7], "pad_token_id": 2}),
        ({"decoder_start_token_id": None, "bos_token_id": 0}, {"decoder_start_token_id": 0}),
        ({"forced_eos_token_id": 2, "forced_bos_token_id": 5}, {"forced_eos_token_id": [2], "forced_bos_token_id": 5}),
        ({"bad_words_ids": [[1], [2], [2, 3]]}, {"bad_words_ids": [[1], [2, 3]]}),
        ({"suppress_tokens": [4], "no_repeat_ngram_size": 3}, {"suppress_tokens": [4], "no_repeat_ngram_size": 3}),
        ({"do_sample": True, "top_k": 0, "temperature": 0.5}, {"do_sample": True, "top_k": 0, "temperature": 0.5}),
        ({"typical_p": 1.0, "guidance_scale": 1}, {}),
    ],
)
def test_fields_as_generate_resolves_them(tmp_path: Path, generation: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert parameters(tmp_path, {**IDS, **generation}).items() >= wanted.items()


def test_a_short_model_caps_the_default_length(tmp_path: Path) -> None:
    assert parameters(tmp_path, IDS, max_position_embeddings=16)["max_length"] == 16


@pytest.mark.parametrize(("longest", "limit"), [(40, 1025), (3000, 3000)])
def test_a_model_without_positions_gets_a_limit_all_the_same(tmp_path: Path, longest: int, limit: int) -> None:
    sizes = {"model_type": "t5", "d_model": 8, "d_kv": 2, "d_ff": 8, "num_layers": 1, "vocab_size": 30}
    (tmp_path / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    (tmp_path / "generation_config.json").write_text(json.dumps({**IDS, "max_length": longest}), encoding="utf-8")
    found = generation_rules.rules(tmp_path)
    assert found.parameters["max_positions"] == str(limit)
    assert (found.max_positions, found.max_length) == (None, longest)


def rules_of(longest: int, positions: int | None) -> generation_rules.GenerationRules:
    return generation_rules.GenerationRules({}, longest, positions, "")


@pytest.mark.parametrize(
    ("asked", "positions", "expected"),
    [
        ("4096", None, ""),
        ("40", None, ""),
        ("39", None, "40 (the default length of an answer) or more"),
        ("many", None, "40 (the default length of an answer) or more"),
        ("64", 64, ""),
        ("65", 64, "40 (the default length of an answer) to 64 (the model's positions)"),
    ],
)
def test_the_limit_of_an_answer_may_be_changed(asked: str, positions: int | None, expected: str) -> None:
    spec = ModelSpec(source="x", step_configs={"generate": {"parameters": {"max_positions": asked}}})
    if not expected:
        text2text_generation._check_positions(spec, rules_of(40, positions))
        return
    with pytest.raises(SpecError) as refused:
        text2text_generation._check_positions(spec, rules_of(40, positions))
    assert f"step_configs.generate.parameters.max_positions is {asked!r}\n  expected: {expected}\n" in str(
        refused.value
    )


def test_without_a_generation_config_the_fields_of_config_json_count(tmp_path: Path) -> None:
    found = parameters(tmp_path, None, **IDS, no_repeat_ngram_size=2, max_length=33)
    assert found.items() >= {"decoder_start_token_id": 2, "no_repeat_ngram_size": 2, "max_length": 33}.items()


def test_beams_are_named_as_not_served(tmp_path: Path) -> None:
    assert generation_rules.rules(folder(tmp_path, {**IDS, "num_beams": 4})).not_served == (
        "num_beams 4 of the folder is not served"
    )
    assert generation_rules.rules(folder(tmp_path, {**IDS, "num_beams": 1})).not_served == ""


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (
            {"encoder_no_repeat_ngram_size": 3},
            "asks for encoder_no_repeat_ngram_size 3, which the served model does not",
        ),
        ({"stop_strings": ["."]}, "asks for stop_strings ['.'], which the served model does not know"),
        ({"min_p": 0.1}, "take min_p out of generation_config.json"),
    ],
)
def test_what_would_change_answers_is_refused(tmp_path: Path, generation: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        generation_rules.rules(folder(tmp_path, {**IDS, **generation}))
    assert message in str(refused.value)


def test_a_model_without_a_start_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceCorruptError, match="names no single token to start with"):
        generation_rules.rules(folder(tmp_path, {"eos_token_id": 2}, bos_token_id=None, decoder_start_token_id=None))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (folder(tmp_path) / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceCorruptError, match="does not load"):
        generation_rules.rules(tmp_path)
