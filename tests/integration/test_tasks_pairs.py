"""Reranking and sparse embedding from tiny models to the served proof; and a swap of query and passage is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, model_config, pipeline, proof, render, validate
from repo_builder.errors import InferenceError
from repo_builder.repository.layout import Layout
from tests import spec_builds, tiny_tokenizers, tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]
PROMPT = "Which passage? "
SPEC = """target: 24.10
models:
- {source: score, cpus: 1}
- {source: prompted, cpus: 1}
- {source: splade, cpus: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers, and two as sentence-transformers writes them."""
    import sentence_transformers
    import torch
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    home = tmp_path_factory.mktemp("pairs")
    tiny_transformers.save("bert", "sequence-classification", home / "score", num_labels=1)
    plain = tiny_transformers.save("roberta", "sequence-classification", home / "plain", num_labels=1)
    reranker = sentence_transformers.CrossEncoder(
        str(plain),
        device="cpu",
        max_length=24,
        activation_fn=torch.nn.Identity(),
        prompts={"query": PROMPT},
        default_prompt_name="query",
    )
    reranker.save_pretrained(str(home / "prompted"))
    masked = tiny_transformers.save("roberta", "masked-lm", home / "masked")
    sparse = sentence_transformers.SparseEncoder(str(masked), device="cpu", max_active_dims=64)
    sparse[1] = SpladePooling("sum", activation_function="log1p_relu")
    sparse.save_pretrained(str(home / "splade"))
    return home


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[pipeline.Result, Path]:
    return spec_builds.build(folder, SPEC)


@pytest.fixture(scope="module")
def served(built: tuple[pipeline.Result, Path], server_factory: ServerFactory) -> Iterator[client.Client]:
    """The repository as it was built, and beside it the reranker with its texts swapped."""
    _, repository = built
    for step in ("", "_tokenizer", "_encoder"):
        planted = repository.parent / "planted" / f"swapped{step}"
        shutil.copytree(repository / f"score{step}", planted)
        config = model_config.parse((planted / "config.pbtxt").read_text(encoding="utf-8"))
        config.name = planted.name
        for part in config.ensemble_scheduling.step:
            part.model_name = part.model_name.replace("score", "swapped")
        (planted / "config.pbtxt").write_text(render.render_config(config), encoding="utf-8")
    code = repository.parent / "planted" / "swapped_tokenizer" / "1" / "model.py"
    swapped = code.read_text(encoding="utf-8").replace("self.prompt + left, right)", "right, left)")
    assert "(right, left)" in swapped
    code.unlink()
    code.write_text(swapped, encoding="utf-8")
    for model in repository.iterdir():
        if model.name.startswith(("score", "splade")):
            shutil.copytree(model, repository.parent / "planted" / model.name)
    running = server_factory(repository.parent / "planted", onnxruntime="1.19.2")
    with client.connect(running.url) as connection:
        yield connection


def test_the_tasks_are_guessed_and_said(built: tuple[pipeline.Result, Path]) -> None:
    result, _ = built
    assert {name: tuple(report["task"].values()) for name, report in result.reports.items()} == {
        "score": (
            "reranking",
            "config.json names BertForSequenceClassification with one label; of single texts it is text-classification",
        ),
        "prompted": ("reranking", "config_sentence_transformers.json names CrossEncoder"),
        "splade": ("sparse-embedding", "modules.json names SpladePooling"),
    }


@pytest.mark.parametrize("name", ["score", "prompted", "splade"])
def test_answers_equal_sentence_transformers(name: str, built: tuple[pipeline.Result, Path]) -> None:
    result, repository = built
    report = result.reports[name]
    assert report["passed"] is True
    assert set(report["requests"]) == {"alone", "batched", "concurrent", "separately"}
    stored = proof.load(Layout.of(repository).proof(name))
    assert len(stored.cases) == (65 if report["task"]["name"] == "reranking" else 64)
    weights = {"score": "SCORE", "prompted": "SCORE"}.get(name, "VALUES")
    assert np.std([case.outputs[weights][0, 0] for case in stored.cases]) > 0.01, "answers vary"
    for output, found in report["outputs"].items():
        assert found["max_abs_error"] <= (0 if found["exact"] else 1e-4), output


def test_public_tensors(built: tuple[pipeline.Result, Path]) -> None:
    _, repository = built

    def tensors(name: str) -> dict[str, list[int]]:
        config = model_config.parse((repository / name / "config.pbtxt").read_text(encoding="utf-8"))
        return {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}

    assert tensors("score") == {"PAIRS": [2], "SCORE": [1], "LOGITS": [1]}
    splade = tensors("splade")
    assert splade.pop("EMBEDDING")[0] > 500
    assert splade == {"TEXT": [1], "INDICES": [64], "VALUES": [64], "TOKENS": [64]}, "max_active_dims of the source"


def test_the_prompt_and_the_length_are_the_sources(built: tuple[pipeline.Result, Path]) -> None:
    _, repository = built
    config = model_config.parse((repository / "prompted_tokenizer" / "config.pbtxt").read_text(encoding="utf-8"))
    assert config.parameters["prompt"].string_value == PROMPT
    assert config.parameters["max_length"].string_value == "24"
    assert config.parameters["layout"].string_value == "pairs"


def test_swapped_query_and_passage_are_refused(built: tuple[pipeline.Result, Path], served: client.Client) -> None:
    stored = proof.load(Layout.of(built[1]).proof("score"))

    def replay(name: str) -> validate.ModelReport:
        return validate.validate(served, dataclasses.replace(stored, model=name))

    assert replay("score").passed
    report = replay("swapped")
    assert not report.passed
    assert report.outputs["SCORE"]["by_mode"]["alone"]["max_abs_error"] > 0.05
    assert any("output SCORE: max abs error" in failure for failure in report.failures())


def test_a_pair_of_bad_utf8_is_refused_alone(served: client.Client) -> None:
    good, raw = np.array([["a river", "the kettle"]], dtype=object), np.array([[b"a", b"\xff"]], dtype=object)
    waiting = [served.infer_async("score", {"PAIRS": pair}) for pair in (good, raw, good)]
    with pytest.raises(InferenceError, match=r"input 'PAIRS': text 0 is not UTF-8: invalid start byte at byte 0"):
        waiting[1].result()
    scores = [waiting[i].result()["SCORE"] for i in (0, 2)]
    assert scores[0].shape == (1, 1)
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_the_entries_are_the_largest_first(served: client.Client, folder: Path) -> None:
    from transformers import AutoTokenizer

    texts = [text for text in tiny_tokenizers.TEXTS if text][:8]
    answer = served.infer("splade", {"TEXT": texts})
    vocabulary: Any = AutoTokenizer.from_pretrained(folder / "splade")
    for row in range(len(texts)):
        indices, values = answer["INDICES"][row], answer["VALUES"][row]
        assert (np.diff(values) <= 0).all()
        np.testing.assert_array_equal(np.nonzero(answer["EMBEDDING"][row])[0], np.sort(indices))
        np.testing.assert_array_equal(answer["EMBEDDING"][row][indices], values)
        assert [t.decode() for t in answer["TOKENS"][row]] == vocabulary.convert_ids_to_tokens(indices.tolist())
