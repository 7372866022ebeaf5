"""Tiny T5, BART and Marian folders to a served, proven model; greedy search and sampling through the real server."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_seq2seq
from conftest import ServerFactory

from repo_builder import client, pipeline, proof, spec
from repo_builder.errors import InferenceError
from repo_builder.tasks import samples
from repo_builder.tasks.text2text_generation import IDS, MASK, OUTPUT

pytestmark = [pytest.mark.server, pytest.mark.torch]

GENERATION: dict[str, dict[str, Any]] = {
    "t5": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "max_length": 24, "num_beams": 4},
    "bart": {
        **{"no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "min_length": 5, "bad_words_ids": [[90], [10, 11]]},
        **{"do_sample": True, "top_k": 8, "max_length": 30},
    },
    "marian": {"no_repeat_ngram_size": 3},
}
CONFIG = {"bart": {"encoder_layers": 1, "decoder_layers": 1}}
TEXTS = [text for text in samples.built_in() if text][:32]
MODELS = tuple(name for name in GENERATION if name != "marian" or importlib.util.find_spec("sentencepiece"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    """One build of all of them; PyTorch with one thread, as tiny matrices gain nothing from two."""
    import torch

    folder, threads = tmp_path_factory.mktemp("seq2seq"), torch.get_num_threads()
    for name in MODELS:
        tiny_seq2seq.save(name, folder / name, generation=GENERATION[name], **CONFIG.get(name, {}))
    models = [{"source": str(folder / name), "name": name, "task": "text2text-generation"} for name in MODELS]
    torch.set_num_threads(1)
    try:
        whole = spec.Spec.model_validate({"models": models})
        return pipeline.build(whole, folder / "repository"), folder / "repository"
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def triton(server_factory: ServerFactory, built: tuple[pipeline.Result, Path]) -> Iterator[client.Client]:
    server = server_factory(built[1])
    with client.connect(f"127.0.0.1:{server.ports.grpc}") as connected:
        yield connected


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in GENERATION])
def test_greedy_answers_equal_generate(built: tuple[pipeline.Result, Path], name: str) -> None:
    if name not in MODELS:
        pytest.skip("sentencepiece is not installed")
    result, out = built
    assert not result.failed, {n: str(e) for n, e in result.failed.items()}
    report = result.reports[name]
    assert report["passed"]
    assert report["requests"]["alone"] == 64
    assert report["requests"]["batched"] >= 8
    assert {o: report["outputs"][o]["exact"] for o in (OUTPUT, IDS, MASK)} == {OUTPUT: True, IDS: True, MASK: True}
    assert set(report["engine"]["parts"]) == {"encoder", "decoder"}
    cases = proof.load(out.parent / "repository.build" / "proof" / f"{name}.npz").cases
    answers = [case.outputs[IDS] for case in cases]
    assert len({answer.tobytes() for answer in answers}) > 30, "the model says nearly the same to everything"
    assert len({answer.shape[1] for answer in answers}) > 3, "the answers are of nearly one length"


def test_what_greedy_search_leaves_out_is_said(built: tuple[pipeline.Result, Path]) -> None:
    result, out = built
    assert "num_beams 4 of the folder is not served" in result.reports["t5"]["reference"]
    config = (out / "t5" / "config.pbtxt").read_text(encoding="utf-8")
    assert "no_repeat_ngram_size" in config
    assert "optional: true" in config


def test_rows_and_requests_have_limits_of_their_own(triton: client.Client) -> None:
    limits = np.array([[1], [7], [23]], dtype=np.int32)
    together = triton.infer("t5", {"TEXT": TEXTS[:3], "MAX_NEW_TOKENS": limits})
    lengths = together[MASK].sum(axis=1)
    assert lengths[0] == 2
    assert (lengths <= limits[:, 0] + 1).all()
    assert together[IDS].shape[1] == lengths.max()
    for row, text in enumerate(TEXTS[:3]):
        alone = triton.infer("t5", {"TEXT": [text], "MAX_NEW_TOKENS": limits[row : row + 1]})
        np.testing.assert_array_equal(alone[IDS][0], together[IDS][row, : lengths[row]])
        assert (together[IDS][row, lengths[row] :] == 0).all()


def test_the_same_seed_gives_the_same_answer_whoever_is_in_the_batch(triton: client.Client) -> None:
    options = {"DO_SAMPLE": True, "TEMPERATURE": 1.5, "TOP_K": 20, "TOP_P": 0.95}

    def sampled(texts: list[str], seeds: list[int]) -> dict[str, Any]:
        rows = {name: [[value]] * len(texts) for name, value in options.items()}
        return triton.infer("t5", {"TEXT": texts, "SEED": [[seed] for seed in seeds], **rows})

    together = sampled(TEXTS, list(range(32)))
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda row: sampled([TEXTS[row]], [row]), range(32)))
    assert [a[OUTPUT][0, 0] for a in alone] == together[OUTPUT][:, 0].tolist()
    other = sampled(TEXTS, list(range(100, 132)))
    assert (other[OUTPUT] != together[OUTPUT]).mean() > 0.5


def test_first_tokens_are_drawn_by_their_probabilities(
    triton: client.Client, built: tuple[pipeline.Result, Path]
) -> None:
    import torch
    import transformers

    folder = built[1].parent / "bart"
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[4], return_tensors="pt")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    with torch.no_grad():
        scores = model(**tokens, decoder_input_ids=torch.tensor([[1, 0]])).logits[0, -1]
    scores[[2, 90]] = -torch.inf  # shorter than min_length; a bad word
    best = scores.topk(8)
    wanted = dict(zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True))
    drawn = []
    for start in range(0, 960, 32):  # the folder's own do_sample and top_k
        asked = {"TEXT": [TEXTS[4]] * 32, "SEED": [[start + row] for row in range(32)], "MAX_NEW_TOKENS": [[3]] * 32}
        drawn += triton.infer("bart", asked)[IDS][:, 2].tolist()
    assert set(drawn) <= set(wanted)
    distance = sum(abs(drawn.count(token) / len(drawn) - share) for token, share in wanted.items()) / 2
    assert distance < 0.06, f"{distance:.3f} from {wanted}"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"TEXT": [b"fine", b"sea\xff!"]}, "input 'TEXT': text 1 is not UTF-8: invalid start byte at byte 3 (0xff)"),
        ({"MAX_NEW_TOKENS": [[0]]}, "input 'MAX_NEW_TOKENS' is 0, expected 1 to 47"),
        ({"MAX_NEW_TOKENS": [[48]]}, "input 'MAX_NEW_TOKENS' is 48, expected 1 to 47"),
        ({"TEMPERATURE": [[0.0]]}, "input 'TEMPERATURE' is 0.0, expected more than 0"),
        ({"TOP_P": [[1.5]]}, "input 'TOP_P' is 1.5, expected more than 0, at most 1"),
        ({"TOP_K": [[-1]]}, "input 'TOP_K' is -1, expected 0 (all tokens) or more"),
        ({"SEED": [[-1]]}, "input 'SEED' is -1, expected 0 or more"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_alone(
    triton: client.Client, inputs: dict[str, Any], message: str
) -> None:
    good = {"TEXT": TEXTS[:2], "SEED": [[1], [2]]}
    expected = triton.infer("bart", good)[OUTPUT]
    with ThreadPoolExecutor(5) as pool:
        others = [pool.submit(triton.infer, "bart", good) for _ in range(4)]
        with pytest.raises(InferenceError) as refused:
            triton.infer("bart", {"TEXT": ["a cat"], **inputs})
    assert message in str(refused.value)
    assert all(np.array_equal(other.result()[OUTPUT], expected) for other in others)


def test_one_model_is_called_with_the_models_that_it_calls(built: tuple[pipeline.Result, Path]) -> None:
    answer = pipeline.infer(str(built[1]), "t5", texts=["a cat"])
    assert answer[OUTPUT].shape == (1, 1)
