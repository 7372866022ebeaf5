"""Scores and the next token against transformers' own processors; sampling by its distribution."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
VOCABULARY = 40
START = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": [1, 7], "max_length": 12}


def _search() -> Any:
    spec = importlib.util.spec_from_file_location("search", ROOT / "templates" / "generate" / "search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


search = _search()


def processors(fields: dict[str, Any]) -> Any:
    """What ``generate()`` would apply to an encoder-decoder's scores; its own method, on a model without weights."""
    import torch
    from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=2, d_ff=8, num_layers=1))
    config = GenerationConfig(**fields)
    config._eos_token_tensor = torch.tensor(fields["eos_token_id"])
    return model._get_logits_processor(config, input_ids_seq_length=1, device="cpu")


@pytest.mark.torch
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6, "no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"bad_words_ids": [[5], [2, 3], [0, 4, 2], [3, 3, 3, 3]]},
        {"min_length": 6},
        {"forced_bos_token_id": 9},
        {"forced_eos_token_id": [1]},
        {"suppress_tokens": [3, 4, 5], "begin_suppress_tokens": [6, 8]},
        {"forced_bos_token_id": 9, "begin_suppress_tokens": [6, 8]},
        {
            "repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "bad_words_ids": [[0], [2, 3]], "min_length": 4,
            "forced_bos_token_id": 3, "forced_eos_token_id": [1], "suppress_tokens": [11],
        },
    ],
    ids=lambda own: "+".join(own) or "nothing",
)  # fmt: skip
def test_scores_equal_transformers_processors(own: dict[str, Any]) -> None:
    import torch

    rules, wanted = search.Rules({**START, **own}), processors({**START, **own})
    random = np.random.default_rng(0)
    changed = False
    for length in range(1, 12):
        for _ in range(20):
            ids = [0, *random.integers(2, 6, length - 1).tolist()]
            scores = random.standard_normal(VOCABULARY).astype(np.float32)
            expected = wanted(torch.tensor([ids]), torch.from_numpy(scores[None].copy())).numpy()[0]
            found = rules.apply(scores.copy(), ids, START["max_length"])
            np.testing.assert_array_equal(found, expected, err_msg=f"after {ids}")
            changed = changed or not np.array_equal(found, scores)
    assert changed == bool(own)


@pytest.mark.torch
@pytest.mark.parametrize("own", [{"top_k": 5}, {"top_p": 0.4}, {"temperature": 0.3, "top_k": 9, "top_p": 0.8}])
def test_probabilities_equal_transformers_warpers(own: dict[str, Any]) -> None:
    import torch

    wanted = processors({**START, "do_sample": True, **own})
    random = np.random.default_rng(1)
    for _ in range(50):
        scores = (3 * random.standard_normal(VOCABULARY)).astype(np.float32)
        expected = wanted(torch.tensor([[0]]), torch.from_numpy(scores[None].copy())).softmax(-1).numpy()[0]
        tokens, shares = search.Sampler(**own).kept(scores.copy())
        found = np.zeros(VOCABULARY)
        found[tokens] = shares
        assert (found > 0).tolist() == (expected > 0).tolist()
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    sampler = search.Sampler(seed=3)
    counts = np.bincount([sampler.draw(scores.copy()) for _ in range(4000)], minlength=4)
    assert np.abs(counts / 4000 - np.exp(scores)).max() < 0.03

    def draws(seed: int) -> list[int]:
        sampler = search.Sampler(seed=seed)
        return [sampler.draw(scores.copy()) for _ in range(50)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)


def test_a_sequence_ends_at_an_end_token_or_at_its_length() -> None:
    rules = search.Rules(START)

    def generated(tokens: list[int], length: int = 12) -> tuple[list[int], bool]:
        sequence = search.Sequence(rules, length)
        for token in tokens:
            sequence.extend(np.eye(VOCABULARY, dtype=np.float32)[token])
        return sequence.ids, sequence.finished

    assert generated([4, 5]) == ([0, 4, 5], False)
    assert generated([4, 7]) == ([0, 4, 7], True)
    assert generated([4, 5], length=3) == ([0, 4, 5], True)


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e38])
@pytest.mark.parametrize("top_k", [0, 1, 3])
def test_no_temperature_draws_a_token_that_must_not_come(temperature: float, top_k: int) -> None:
    scores = np.array([1, 2, 3, -np.inf], dtype=np.float32)
    tokens, shares = search.Sampler(temperature=temperature, top_k=top_k, seed=1).kept(scores)
    found = np.zeros(4)
    found[tokens] = shares
    assert found[3] == 0
    assert found.sum() == pytest.approx(1)
    if temperature < 1 or top_k == 1:
        assert found.tolist() == [0, 0, 1, 0]
