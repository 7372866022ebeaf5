"""Text classification, token classification and fill-mask from tiny models to the served proof; planted faults fail."""

from __future__ import annotations

import dataclasses
import os
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
from tests import tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]
SPEC = """target: 24.10
models:
- {source: sentiment, cpus: 1}
- {source: topics, cpus: 1}
- source: entities
  cpus: 1
  step_configs: {postprocess: {parameters: {aggregation_strategy: first}}}
- source: gaps
  cpus: 1
  step_configs: {postprocess: {parameters: {top_k: 3}}}
"""
TOPICS = {0: "art", 1: "économie", 2: "体育", 3: "science", 4: "politics"}
TASKS = {
    "sentiment": "text-classification",
    "topics": "text-classification",
    "entities": "token-classification",
    "gaps": "fill-mask",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    home = tmp_path_factory.mktemp("tokens")
    several = {"problem_type": "multi_label_classification", "id2label": TOPICS}
    tiny_transformers.save(
        "gpt2", "sequence-classification", home / "sentiment", tokenizer={"padding_side": "left"}, pad_token_id=None
    )
    tiny_transformers.save("distilbert", "sequence-classification", home / "topics", **several)
    tiny_transformers.save("distilbert", "token-classification", home / "entities")
    tiny_transformers.save("roberta", "masked-lm", home / "gaps")
    (home / "spec.yaml").write_text(SPEC, encoding="utf-8")
    result = pipeline.build(home / "spec.yaml", home / "repository")
    result.raise_failed()
    return result, home / "repository"


@pytest.fixture(scope="module")
def served(built: tuple[pipeline.Result, Path], server_factory: ServerFactory) -> Iterator[client.Client]:
    """The repository as it was built, and beside it models with one fault each; they share the steps without one."""
    home = built[1].parent / "planted"
    shutil.copytree(built[1], home, copy_function=os.link)
    plant(home, "entities", "other_strategy", "postprocess", {"parameters": {"aggregation_strategy": "max"}})
    labels = '["O", "I-PER", "B-PER", "B-LOC", "I-LOC"]'
    plant(home, "entities", "other_labels", "postprocess", {"parameters": {"labels": labels}})
    plant(home, "topics", "other_order", "encoder", {})
    reverse_labels(home / "other_order_encoder" / "1" / "model.onnx")
    plant(home, "gaps", "other_decoder", "postprocess", {"parameters": {"pad_id": "2"}})
    running = server_factory(home, onnxruntime="1.19.2")
    with client.connect(running.url) as connection:
        yield connection


def plant(home: Path, model: str, name: str, step: str, overrides: dict[str, Any]) -> None:
    """A copy of the ensemble that calls a changed copy of one of its steps."""
    shutil.copytree(home / model, home / name)
    shutil.copytree(home / f"{model}_{step}", home / f"{name}_{step}")
    change(home / f"{name}_{step}", {**overrides, "name": f"{name}_{step}"})
    config = home / name / "config.pbtxt"
    text = config.read_text(encoding="utf-8").replace(f'"{model}_{step}"', f'"{name}_{step}"')
    config.unlink()
    config.write_text(text.replace(f'name: "{model}"', f'name: "{name}"'), encoding="utf-8")


def change(model: Path, overrides: dict[str, Any]) -> None:
    path = model / "config.pbtxt"
    config = model_config.apply_overrides(model_config.parse(path.read_text(encoding="utf-8")), overrides)
    path.unlink()
    path.write_text(render.render_config(config), encoding="utf-8")


def reverse_labels(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    (table,) = (tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.STRING)
    table.string_data[:] = list(table.string_data)[::-1]
    path.unlink()
    onnx.save(model, path)


def replay(built: tuple[pipeline.Result, Path], connection: client.Client, model: str, name: str) -> Any:
    stored = proof.load(Layout.of(built[1]).proof(model))
    planted = dataclasses.replace(stored, model=name)
    return validate.validate(connection, planted)


def test_every_model_is_proven_on_the_built_in_texts(built: tuple[pipeline.Result, Path]) -> None:
    reports = built[0].reports
    assert {name: report["passed"] for name, report in reports.items()} == dict.fromkeys(TASKS, True)
    for name, report in reports.items():
        assert report["cases"] >= (63 if name == "sentiment" else 64), "GPT-2 makes no token of an empty text"
        assert set(report["requests"]) == {"alone", "batched", "concurrent", "separately"}
        assert f"pipeline('{TASKS[name]}'" in report["reference"]
        for output in report["outputs"].values():
            assert output["exact"] or output["max_abs_error"] <= 1e-4
    assert reports["entities"]["reference"].startswith("transformers ")
    assert "aggregation_strategy='first'" in reports["entities"]["reference"]
    assert "top_k=3" in reports["gaps"]["reference"]


def test_the_tasks_are_guessed(built: tuple[pipeline.Result, Path]) -> None:
    layout = Layout.of(built[1])
    stored = {name: proof.load(layout.proof(name)) for name in TASKS}
    assert list(stored["topics"].cases[0].outputs) == ["LABELS", "LOGITS", "SCORES"]
    assert set(stored["entities"].masks) == set(stored["entities"].cases[0].outputs)
    assert {case.outputs["TOKENS"].shape[1] for case in stored["gaps"].cases} == {1, 2}


def test_labels_come_best_first_and_several_may_hold(served: client.Client) -> None:
    texts = ["a ferry", "", "東京 🙂 " * 60]
    answer = served.infer("topics", {"TEXT": texts})
    assert answer["SCORES"].shape == (3, 5)
    assert (np.diff(answer["SCORES"]) <= 0).all()
    for row in range(3):
        order = np.argsort(-answer["LOGITS"][row], kind="stable")
        assert [label.decode() for label in answer["LABELS"][row]] == [TOPICS[i] for i in order]
        np.testing.assert_allclose(answer["SCORES"][row], 1 / (1 + np.exp(-answer["LOGITS"][row][order])), atol=1e-6)
    softmax = served.infer("sentiment", {"TEXT": texts})["SCORES"]
    np.testing.assert_allclose(softmax.sum(axis=1), 1, atol=1e-5)


def test_entities_stand_where_they_say(served: client.Client) -> None:
    texts = ["Angela Merkel visited 東京 in May 🙂 with Zoë.", ""]
    answer = served.infer("entities", {"TEXT": texts})
    assert not answer["ENTITIES"][1].astype(bool).any()
    real = answer["ENTITIES"][0].astype(bool)
    assert real.any()
    starts, ends = answer["STARTS"][0][real], answer["ENDS"][0][real]
    for start, end, word in zip(starts, ends, answer["WORDS"][0][real], strict=True):
        assert texts[0][start:end].lower().replace(" ", "")[:1] == word.decode().lower().replace("zoe", "zoë")[:1]
    assert (starts < ends).all()
    assert (starts[1:] >= ends[:-1]).all()
    assert set(answer["ENTITIES"][0][real]) <= {b"PER", b"LOC"}
    assert answer["LOGITS"].shape == (*answer["ATTENTION_MASK"].shape, 5)
    assert answer["OFFSETS"].shape == (*answer["ATTENTION_MASK"].shape, 2)


def test_masks_are_filled(served: client.Client) -> None:
    answer = served.infer("gaps", {"TEXT": ["a <mask> in <mask>", "one <mask>."]})
    assert {array.shape for array in answer.values()} == {(2, 2, 3)}
    assert not answer["SCORES"][1, 1].any()
    assert answer["SCORES"][0].all()
    filled = answer["SEQUENCES"][1, 0, 0].decode()
    assert filled == f"one{answer['TOKEN_STRINGS'][1, 0, 0].decode()}."
    assert answer["SEQUENCES"][0, 0, 0].decode().count("<mask>") == 1, "the other mask stays"


def test_bad_requests_are_refused_alone(served: client.Client) -> None:
    bad = np.array([[b"sea\xff!"]], dtype=object)
    for model in TASKS:
        text = "fine <mask>"
        waiting = [served.infer_async(model, {"TEXT": each}) for each in ([text], bad, [text])]
        with pytest.raises(InferenceError, match=r"text 0 is not UTF-8: invalid start byte at byte 3 \(0xff\)"):
            waiting[1].result()
        first, last = waiting[0].result(), waiting[2].result()
        assert all(np.array_equal(first[name], last[name]) for name in first)
    waiting = [served.infer_async("gaps", {"TEXT": [text]}) for text in ("a <mask>", "no mask", "a <mask>")]
    with pytest.raises(InferenceError, match="input 'TEXT': text 0 has no mask token '<mask>'"):
        waiting[1].result()
    assert waiting[0].result()["TOKENS"].tolist() == waiting[2].result()["TOKENS"].tolist()


@pytest.mark.parametrize(
    ("model", "plant", "outputs"),
    [
        ("entities", "other_strategy", {"SCORES"}),
        ("entities", "other_labels", {"ENTITIES"}),
        ("topics", "other_order", {"LABELS"}),
        ("gaps", "other_decoder", {"SEQUENCES"}),
    ],
)
def test_a_planted_fault_is_refused(
    built: tuple[pipeline.Result, Path], served: client.Client, model: str, plant: str, outputs: set[str]
) -> None:
    sound, report = (replay(built, served, model, name) for name in (model, plant))
    assert sound.passed, sound.failures()
    assert not report.passed
    assert outputs <= {name for name, output in report.outputs.items() if not output["passed"]}
    assert report.failures()[0].startswith("output ")
