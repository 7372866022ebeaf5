"""Question-answering and zero-shot classification from tiny models to the served proof; and planted faults refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, model_config, pipeline, proof, render, spec, tasks, validate
from repo_builder.errors import InferenceError, SpecError, UnknownTaskError
from repo_builder.formats import huggingface
from repo_builder.repository.layout import Layout
from repo_builder.tasks import zero_shot_classification
from tests import spec_builds, tiny_tokenizers, tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]
TEXTS = tiny_tokenizers.TEXTS
LONG = " ".join(text for text in TEXTS[9:30])
TEMPLATE = "About {}, and no more!"
SPEC = f"""target: 24.10
models:
- {{source: bert_reader, cpus: 1}}
- {{source: roberta_reader, cpus: 1}}
- {{source: bert_nli, cpus: 1, task: zero-shot-classification}}
- source: bart_nli
  cpus: 1
  task: zero-shot-classification
  step_configs: {{tokenizer: {{parameters: {{hypothesis_template: "{TEMPLATE}"}}}}}}
"""
READERS, NLI = ("bert_reader", "roberta_reader"), ("bert_nli", "bart_nli")
PLANTS = ("sound", "off_by_one", "wrong_stride", "longer_answers", "wrong_template")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("answers")
    tiny_transformers.save("bert", "question-answering", home / "bert_reader")
    tiny_transformers.save("roberta", "question-answering", home / "roberta_reader")
    tiny_transformers.save("bert", "nli", home / "bert_nli")
    tiny_transformers.save("bart", "nli", home / "bart_nli")
    return home


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[pipeline.Result, Path]:
    return spec_builds.build(folder, SPEC)


@pytest.fixture(scope="module")
def served(built: tuple[pipeline.Result, Path], server_factory: ServerFactory) -> Iterator[client.Client]:
    """The repository as it was built, and beside it models with one fault each; they share their encoders."""
    _, repository = built
    home = repository.parent / "planted"
    shutil.copytree(repository, home)
    for name in PLANTS:
        source = "bert_nli" if name == "wrong_template" else "bert_reader"
        for step in ("", "_tokenizer", "_postprocess"):
            if (repository / f"{source}{step}").is_dir():
                shutil.copytree(repository / f"{source}{step}", home / f"{name}{step}")
                rename(home / f"{name}{step}", source, name)
    code = home / "off_by_one_postprocess" / "1" / "model.py"
    wrong = code.read_text(encoding="utf-8").replace("ends[-1], 1]", "ends[-1], 1] - 1")
    assert wrong.count("- 1\n") == 1
    code.unlink()
    code.write_text(wrong, encoding="utf-8")
    change(home / "wrong_stride_tokenizer", {"parameters": {"stride": "12"}})
    change(home / "longer_answers_postprocess", {"parameters": {"max_answer_len": "30"}})
    change(home / "wrong_template_tokenizer", {"parameters": {"hypothesis_template": "This is {}."}})
    running = server_factory(home, onnxruntime="1.19.2")
    with client.connect(running.url) as connection:
        yield connection


def change(model: Path, overrides: dict[str, Any]) -> None:
    path = model / "config.pbtxt"
    config = model_config.apply_overrides(model_config.parse(path.read_text(encoding="utf-8")), overrides)
    path.unlink()
    path.write_text(render.render_config(config), encoding="utf-8")


def rename(model: Path, old: str, new: str) -> None:
    path = model / "config.pbtxt"
    config = model_config.parse(path.read_text(encoding="utf-8"))
    config.name = model.name
    for step in config.ensemble_scheduling.step:
        if not step.model_name.endswith("_encoder"):
            step.model_name = step.model_name.replace(old, new)
    path.unlink()
    path.write_text(render.render_config(config), encoding="utf-8")


def replay(built: tuple[pipeline.Result, Path], served: client.Client, name: str) -> validate.ModelReport:
    source = "bert_nli" if name == "wrong_template" else "bert_reader"
    stored = proof.load(Layout.of(built[1]).proof(source))
    return validate.validate(served, dataclasses.replace(stored, model=name))


def bytes_of(*texts: str | bytes) -> Any:
    return np.array([[t.encode() if isinstance(t, str) else t for t in texts]], dtype=object)


@pytest.mark.parametrize("name", READERS)
def test_answers_equal_the_pipeline_of_transformers_5_2(name: str, built: tuple[pipeline.Result, Path]) -> None:
    result, repository = built
    report = result.reports[name]
    assert report["passed"] is True
    assert report["reference"].startswith("transformers 5.2.0 pipeline('question-answering')")
    assert set(report["requests"]) == {"alone", "batched", "concurrent", "separately"}
    assert set(report["outputs"]) == {"ANSWER", "SCORE", "START", "END"}
    assert report["outputs"]["SCORE"]["limits"] == {"max_abs_error": 1e-4}
    stored = proof.load(Layout.of(repository).proof(name))
    answers = [case.outputs["ANSWER"][0, 0] for case in stored.cases]
    assert len(answers) >= 60
    assert len(set(answers)) > 30, "answers vary"
    assert np.std([case.outputs["SCORE"][0, 0] for case in stored.cases]) > 0.01
    for case, answer in zip(stored.cases, answers, strict=True):
        context = case.inputs["CONTEXT"][0, 0].decode()
        assert context[case.outputs["START"][0, 0] : case.outputs["END"][0, 0]] == answer.decode()


@pytest.mark.parametrize("name", NLI)
def test_scores_equal_the_zero_shot_pipeline(name: str, built: tuple[pipeline.Result, Path]) -> None:
    result, repository = built
    report = result.reports[name]
    assert report["passed"] is True
    assert set(report["requests"]) == {"alone", "batched", "concurrent", "separately"}
    assert set(report["outputs"]) == {"SCORES", "MULTI_LABEL_SCORES"}
    cases = proof.load(Layout.of(repository).proof(name)).cases
    assert len(cases) >= 60
    assert {case.outputs["SCORES"].shape[1] for case in cases} == {1, 2, 3, 5}
    for case in cases:
        if case.outputs["SCORES"].shape[1] == 1:
            np.testing.assert_array_equal(case.outputs["SCORES"], case.outputs["MULTI_LABEL_SCORES"])
    assert np.std([case.outputs["SCORES"][0, 0] for case in cases]) > 0.01
    assert np.std([case.outputs["MULTI_LABEL_SCORES"][0, 0] for case in cases]) > 0.01


def test_readers_are_guessed_and_public_tensors_are_named(
    built: tuple[pipeline.Result, Path], served: client.Client
) -> None:
    result, _ = built
    assert tuple(result.reports["bert_reader"]["task"].values()) == (
        "question-answering",
        "config.json names BertForQuestionAnswering",
    )
    config = served.config("bert_reader")
    assert [(t.name, list(t.dims)) for t in config.input] == [("QUESTION", [1]), ("CONTEXT", [1])]
    shown = {t.name: list(t.dims) for t in config.output}
    single = {key: [1] for key in ("ANSWER", "SCORE", "START", "END")}
    assert shown == {**single, "START_LOGITS": [-1, -1], "END_LOGITS": [-1, -1]}
    config = served.config("bart_nli")
    assert [(t.name, list(t.dims)) for t in config.input] == [("TEXT", [1]), ("CANDIDATE_LABELS", [-1])]
    assert {t.name: list(t.dims) for t in config.output} == {
        "SCORES": [-1],
        "MULTI_LABEL_SCORES": [-1],
        "LOGITS": [-1, 3],
    }


def test_outputs_can_be_asked_for_one_by_one(served: client.Client) -> None:
    question = {"QUESTION": bytes_of("who?"), "CONTEXT": bytes_of(LONG)}
    whole = served.infer("bert_reader", question)
    assert whole["START_LOGITS"].shape[1] > 5, "windows"
    for name, array in whole.items():
        alone = served.infer("bert_reader", question, outputs=[name])
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], array)


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        ("", "a", "input 'QUESTION': text 0 is empty"),
        ("who?", "", "input 'CONTEXT': text 0 is empty"),
        (LONG, LONG, "'QUESTION' is too long: beside it no window of 48 tokens"),
        (b"who\xff", "a", "input 'QUESTION': text 0 is not UTF-8"),
    ],
)
def test_a_bad_question_is_refused_alone(question: Any, context: str, message: str, served: client.Client) -> None:
    good = {"QUESTION": bytes_of("who?"), "CONTEXT": bytes_of(LONG)}
    bad = {"QUESTION": bytes_of(question), "CONTEXT": bytes_of(context)}
    expected = served.infer("bert_reader", good)["ANSWER"]
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(served.infer, "bert_reader", bad if n == 3 else good) for n in range(8)]
    with pytest.raises(InferenceError, match=message):
        running.pop(3).result()
    for one in running:
        np.testing.assert_array_equal(one.result()["ANSWER"], expected)


@pytest.mark.parametrize("name", NLI)
def test_empty_and_long_texts_and_written_out_special_tokens_are_scored(
    name: str, folder: Path, served: client.Client
) -> None:
    import torch
    import transformers

    source = transformers.AutoTokenizer.from_pretrained(folder / name)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / name).eval()
    template = TEMPLATE if name == "bart_nli" else zero_shot_classification.TEMPLATE
    labels = ["river", "ночь", "餐厅"]
    texts = ["", LONG, "ends </s> here [SEP] and there"]
    several = served.infer(name, {"TEXT": bytes_of(*texts).T, "CANDIDATE_LABELS": np.repeat(bytes_of(*labels), 3, 0)})
    for row, text in enumerate(texts):
        pairs = [source(text, template.format(label), truncation="only_first", return_tensors="pt") for label in labels]
        with torch.no_grad():
            logits = np.concatenate([model(**pair).logits.numpy() for pair in pairs])
        np.testing.assert_allclose(several["LOGITS"][row], logits, atol=1e-4)
        entailed = np.exp(logits[:, 2] - logits[:, 2].max())
        np.testing.assert_allclose(several["SCORES"][row], entailed / entailed.sum(), atol=1e-4)


def test_a_label_that_is_not_utf_8_or_too_long_is_refused(served: client.Client) -> None:
    for label, message in ((b"\xff", "input 'CANDIDATE_LABELS': text 0 is not UTF-8"), (LONG, "cannot be encoded")):
        with pytest.raises(InferenceError, match=message):
            served.infer("bert_nli", {"TEXT": bytes_of("a"), "CANDIDATE_LABELS": bytes_of(label)})


def test_a_sound_copy_passes(built: tuple[pipeline.Result, Path], served: client.Client) -> None:
    assert replay(built, served, "sound").passed


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("off_by_one", "END"),
        ("wrong_stride", "SCORE"),
        ("longer_answers", "END"),
        ("wrong_template", "SCORES"),
    ],
)
def test_a_planted_fault_is_refused(
    name: str, output: str, built: tuple[pipeline.Result, Path], served: client.Client
) -> None:
    report = replay(built, served, name)
    assert not report.passed
    assert not report.outputs[output]["passed"]
    assert not report.refused


def test_labels_without_entailment_are_refused(folder: Path, tmp_path: Path) -> None:
    plain = tiny_transformers.save("bert", "sequence-classification", tmp_path)
    with pytest.raises(UnknownTaskError, match=r"the labels of .* are negative, neutral, positive") as found:
        zero_shot_classification.head(huggingface.describe(plain), spec.ModelSpec(source="plain"))
    assert "one of which begins with 'entail'" in str(found.value)
    assert tasks.guess(huggingface.describe(folder / "bert_nli"))[0] == "text-classification"


@pytest.mark.parametrize("template", ["no place", "{label}", "{", "{0.__class__}", "{} {0[0]}", "{:d}"])
def test_a_template_without_a_place_for_labels_is_refused(template: str) -> None:
    asked = {"tokenizer": {"parameters": {"hypothesis_template": template}}}
    with pytest.raises(SpecError, match="hypothesis_template is ") as found:
        zero_shot_classification.template(spec.ModelSpec(source="plain", step_configs=asked))
    assert "a text with {} where the label goes" in str(found.value)


def test_a_sample_without_a_question_is_refused(folder: Path) -> None:
    from repo_builder.tasks import question_answering

    samples = {"texts": ({"QUESTION": "who?", "CONTEXT": "a"}, {"QUESTION": "", "CONTEXT": "a"})}
    asked = spec.ModelSpec(source="bert_reader", samples=samples)
    source = huggingface.describe(folder / "bert_reader")
    with pytest.raises(SpecError, match=r"samples.texts\[1\] has an empty question or context"):
        question_answering.proof(asked, source, source, None)
