"""Tiny T5, BART and Marian folders to a served, proven model; greedy search and sampling through the real server."""

from __future__ import annotations

import importlib.util
import itertools
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_seq2seq
from conftest import ServerFactory

from repo_builder import client, model_config, pipeline, proof, render, spec
from repo_builder.cli import example_call
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
LIMIT = 1300
"""Asked of T5, which has no positions; without a word it would be 1025."""
CONFIG = {"bart": {"encoder_layers": 1, "decoder_layers": 1}}
TEXTS = [text for text in samples.built_in() if text][:32]
MODELS = tuple(name for name in GENERATION if name != "marian" or importlib.util.find_spec("sentencepiece"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    """One build of all of them; PyTorch with one thread, as tiny matrices gain nothing from two."""
    import torch

    assert GENERATION["t5"]["max_length"] < LIMIT

    folder, threads = tmp_path_factory.mktemp("seq2seq"), torch.get_num_threads()
    for name in MODELS:
        tiny_seq2seq.save(name, folder / name, generation=GENERATION[name], **CONFIG.get(name, {}))
    models: list[dict[str, Any]] = [
        {"source": str(folder / name), "name": name, "task": "text2text-generation"} for name in MODELS
    ]
    models[0]["step_configs"] = {"generate": {"parameters": {"max_positions": str(LIMIT)}}}
    torch.set_num_threads(1)
    try:
        whole = spec.Spec.model_validate({"models": models})
        return pipeline.build(whole, folder / "repository"), folder / "repository"
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def spoilt(built: tuple[pipeline.Result, Path]) -> int:
    """A token in the middle of some of T5's answers; after it the scores of the model ``broken`` are NaN."""
    answers = [case.outputs[IDS][0, 1:-1].tolist() for case in _proof(built, "t5").cases]
    return next(t for answer in answers for t in answer if 8 <= sum(t in other for other in answers) <= 40)


@pytest.fixture(scope="module")
def address(server_factory: ServerFactory, built: tuple[pipeline.Result, Path], spoilt: int) -> str:
    """Of a server with the repository as it was built, and with ``broken``, which shares T5's encoder."""
    home = built[1].parent / "planted"
    shutil.copytree(built[1], home)
    for part in ("", "_decoder"):
        shutil.copytree(built[1] / f"t5{part}", home / f"broken{part}")
        path = home / f"broken{part}" / "config.pbtxt"
        config = model_config.parse(path.read_text(encoding="utf-8"))
        config.name = f"broken{part}"
        if not part:
            config.parameters["decoder"].string_value = "broken_decoder"
        path.unlink()
        path.write_text(render.render_config(config), encoding="utf-8")
    _spoil(home / "broken_decoder" / "1" / "model.onnx", spoilt)
    return f"127.0.0.1:{server_factory(home).ports.grpc}"


@pytest.fixture(scope="module")
def triton(address: str) -> Iterator[client.Client]:
    with client.connect(address) as connected:
        yield connected


def _proof(built: tuple[pipeline.Result, Path], name: str) -> proof.Proof:
    return proof.load(built[1].parent / "repository.build" / "proof" / f"{name}.npz")


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in GENERATION])
def test_greedy_answers_equal_generate(built: tuple[pipeline.Result, Path], name: str) -> None:
    if name not in MODELS:
        pytest.skip("sentencepiece is not installed")
    result, _ = built
    assert not result.failed, {n: str(e) for n, e in result.failed.items()}
    report = result.reports[name]
    assert report["passed"]
    assert report["requests"]["alone"] == 64
    assert report["requests"]["batched"] >= 8
    assert {o: report["outputs"][o]["exact"] for o in (OUTPUT, IDS, MASK)} == {OUTPUT: True, IDS: True, MASK: True}
    assert set(report["engine"]["parts"]) == {"encoder", "decoder"}
    cases = _proof(built, name).cases
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


def test_scores_that_are_not_numbers_fail_their_own_request_alone(triton: client.Client, spoilt: int) -> None:
    answers = [triton.infer("t5", {"TEXT": [text]})[IDS][0].tolist() for text in TEXTS]
    assert 4 <= sum(spoilt in answer[1:-1] for answer in answers) <= 28

    def asked(row: int, sampling: bool) -> list[int] | str:
        options = {"DO_SAMPLE": [[True]], "TOP_K": [[1]]} if sampling else {}
        try:
            return list(triton.infer("broken", {"TEXT": [TEXTS[row]], **options})[IDS][0].tolist())
        except InferenceError as error:
            return str(error)

    for sampling in (False, True):
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda row, sampling=sampling: asked(row, sampling), range(len(TEXTS))))
        for answer, one in zip(answers, found, strict=True):
            if spoilt in answer[1:-1]:
                place = answer.index(spoilt, 1) + 1
                assert f"text 0: the decoder's scores of token {place} are not finite (NaN or infinity)" in one
            else:
                assert one == answer


def _spoil(path: Path, token: int) -> None:
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
        node.input[:] = ["scores" if name == "logits" else name for name in node.input]
    constants = {"spoilt": np.array(token, np.int64), "nan": np.array(np.nan, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.node.append(helper.make_node("Equal", ["decoder_input_ids", "spoilt"], ["bad"]))
    model.graph.node.append(helper.make_node("Where", ["bad", "nan", "scores"], ["logits"]))
    path.unlink()
    onnx.save(model, path)


def test_a_model_without_positions_has_a_limit_all_the_same(triton: client.Client) -> None:
    with pytest.raises(InferenceError, match=f"input 'MAX_NEW_TOKENS' is 2000000000, expected 1 to {LIMIT - 1}"):
        triton.infer("t5", {"TEXT": ["a cat"], "MAX_NEW_TOKENS": [[2_000_000_000]]})


@pytest.mark.parametrize("name", MODELS)
def test_the_printed_call_is_answered(address: str, built: tuple[pipeline.Result, Path], name: str) -> None:
    said = shlex.split(example_call.options(built[1], name, built[0].reports[name]["inputs"]))
    texts, tensors = ([v for o, v in itertools.pairwise(said) if o == option] for option in ("--text", "--input"))
    assert texts or tensors
    assert pipeline.infer(f"grpc://{address}", name, texts=texts, tensors=tensors)[OUTPUT].shape == (1, 1)


def test_one_model_is_called_with_the_models_that_it_calls(built: tuple[pipeline.Result, Path]) -> None:
    answer = pipeline.infer(str(built[1]), "t5", texts=["a cat"])
    assert answer[OUTPUT].shape == (1, 1)
