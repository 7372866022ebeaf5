"""What an engine is asked while it is built, and what a plan of each precision must keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder import tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.formats import huggingface
from repo_builder.formats import onnx as onnx_format
from repo_builder.pipeline import plans
from repo_builder.proof import Tolerance
from repo_builder.spec import ModelSpec, from_flags
from repo_builder.tasks import calibration, plain_tensors, samples, tokenizer
from repo_builder.tasks.tolerances import TENSORRT, tolerances
from repo_builder.tensors import TensorSpec
from tests import tiny_transformers

IDS = ("batch", "sequence")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transformers.save("bert", "base", tmp_path_factory.mktemp("calibration") / "bert")


def engine(folder: Path, *names: str, shape: tuple[str, ...] = IDS) -> Artifact:
    return Artifact(folder / "model.onnx", "onnx", tuple(TensorSpec(n, "INT64", shape) for n in names), batch="batch")


def spec(folder: Path, **fields: object) -> ModelSpec:
    return from_flags(str(folder), engine="tensorrt", **fields).models[0]


def test_text_engines_are_asked_the_tokens_of_the_samples(folder: Path) -> None:
    source, wanted = huggingface.describe(folder), engine(folder, "input_ids", "attention_mask")
    found = calibration.requests(spec(folder), source, wanted)
    assert len(found) >= 10
    for arrays in found:
        assert list(arrays) == ["input_ids", "attention_mask"]
        assert arrays["input_ids"].dtype == np.int64
        assert arrays["attention_mask"].any(axis=1).all(), "no row is all padding"
    own = calibration.requests(spec(folder, samples={"texts": ["a cat", "a dog sat"]}), source, wanted)
    assert [arrays["input_ids"].shape[0] for arrays in own] == [2]
    alone = calibration.requests(spec(folder, batching={"max_batch_size": 1}), source, wanted)
    assert {arrays["input_ids"].shape[0] for arrays in alone} == {1}


def test_other_engines_are_asked_arrays(folder: Path, tmp_path: Path) -> None:
    windows = engine(folder, "input_ids", shape=("batch", "windows", "sequence"))
    assert len(calibration.requests(spec(folder), huggingface.describe(folder), windows)) == 8, "texts make no windows"
    assert (
        calibration.longest(
            spec(folder, shapes={"sequence": {"min": 1, "opt": 8, "max": 16}}), huggingface.describe(folder)
        )
        == 16
    )


def test_samples_keep_their_integers_where_a_plan_has_narrower_ones(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    source = onnx_format.describe(tmp_path / "m.onnx")
    plan = Artifact(
        tmp_path / "m.plan",
        "tensorrt_plan",
        *(tuple(TensorSpec(t.name, "INT32", t.shape) for t in side) for side in (source.inputs, source.outputs)),
        batch="batch",
    )
    np.savez(tmp_path / "fits.npz", x=np.array([[1, 2]], np.int64))
    np.savez(tmp_path / "large.npz", x=np.array([[1, 1 << 40]], np.int64))
    asked = spec(tmp_path / "m.onnx", samples={"arrays": [str(tmp_path / "fits.npz")]})
    found = plain_tensors.proof(asked, source, plan, None)
    assert found.cases[0].inputs["x"].dtype == np.int32
    np.testing.assert_array_equal(found.cases[0].outputs["y"], [[2, 4]])
    with pytest.raises(SpecError, match="'x' is int64"):
        plain_tensors.requests(spec(tmp_path / "m.onnx", samples={"arrays": [str(tmp_path / "large.npz")]}), plan)


def test_a_plan_keeps_what_its_precision_allows_and_exact_outputs_stay_exact(folder: Path) -> None:
    defaults = {"EMBEDDING": Tolerance(1e-5, cosine=0.99999), "LABELS": Tolerance()}
    for precision, allowed in TENSORRT.items():
        found = tolerances(spec(folder, precision=precision), defaults)
        assert found == {"EMBEDDING": allowed, "LABELS": Tolerance()}
    assert tolerances(from_flags(str(folder)).models[0], defaults) == defaults


def test_values_of_shape_tensors_are_named_in_the_shapes(folder: Path) -> None:
    size = {"min": 1, "opt": 2, "max": 4}
    graph = Artifact(folder, "onnx", (TensorSpec("x", "FP32", ("batch",)), TensorSpec("size", "INT64", (2,))))
    asked = spec(folder, shapes={"size[0]": size, "size[1]": size, "batch": size})
    assert plans.shape_tensors(asked, graph) == ["size"]
    assert plans.shape_tensors(spec(folder), graph) == []


ASKED = ("reranking", "question-answering", "zero-shot-classification", "fill-mask", "text-classification")
AXES = {
    "question-answering": ("batch", "windows", "sequence"),
    "zero-shot-classification": ("batch", "labels", "sequence"),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with every special token, and labels of natural language inference."""
    return tiny_transformers.save("bert", "nli", tmp_path_factory.mktemp("asked") / "bert")


def served(asked: calibration.Asked, folder: Path, repository: Path) -> Any:
    """The tokenizer model as it is served, over a stand-in for Triton's own module."""
    inputs = [TensorSpec(name, "INT64", asked.layout.axes) for name in tokenizer.OUTPUTS]
    planned = tokenizer.model(
        "tok", folder, inputs, asked.settings, max_batch_size=8, layout=asked.layout, extra=("offsets",), vendor=False
    )
    return stand_in.load(*stand_in.write(planned, repository))


@pytest.mark.parametrize("name", ASKED)
def test_every_task_is_calibrated_on_what_its_served_model_sees(name: str, bert: Path, tmp_path: Path) -> None:
    source, model = huggingface.describe(bert), spec(bert, task=name)
    asked = tasks.get(name).asked(model, source)  # type: ignore[attr-defined]
    tok = served(asked, bert, tmp_path)
    assert len(asked.rows) >= 50
    together = 1 if asked.layout.kind == "labels" else 3  # requests of the labels' layout have as many for each row
    for start in range(0, 24, together):
        rows = asked.rows[start : start + together]
        request = {key: np.concatenate([samples.request(row)[key] for row in rows]) for key in rows[0]}
        [answer] = tok.execute([request])
        assert answer.error is None
        found = calibration.encode(asked, source, rows)
        for output in tokenizer.OUTPUTS:
            np.testing.assert_array_equal(found[output], answer.arrays[output], err_msg=f"{output} of {rows}")


def test_pairs_windows_and_labels_reach_the_engine(bert: Path) -> None:
    """A reranker that is calibrated on single texts never sees a second segment, nor a separator inside a text."""
    source = huggingface.describe(bert)
    for name in ASKED[:3]:
        wanted = engine(bert, *tokenizer.OUTPUTS, shape=AXES.get(name, IDS))
        found = calibration.requests(spec(bert, task=name), source, wanted, tasks.get(name))
        assert len(found) >= 10
        assert all(arrays["token_type_ids"].any() for arrays in found), name
        assert {arrays["input_ids"].ndim for arrays in found} == {len(wanted.inputs[0].shape)}
    own = {"texts": [{"PAIRS": ["a cat", "a dog"]}]}
    [pair] = calibration.requests(
        spec(bert, task="reranking", samples=own), source, engine(bert, *tokenizer.OUTPUTS), tasks.get("reranking")
    )
    assert pair["input_ids"].shape[0] == 1


def test_windows_that_the_plan_does_not_take_are_left_out(bert: Path) -> None:
    sizes = {"min": [1, 1, 1], "opt": [1, 1, 64], "max": [8, 1, 512]}
    wanted = engine(bert, "input_ids", shape=AXES["question-answering"])
    wanted = replace(wanted, facts={"profiles": [{"input_ids": sizes}]})
    task = tasks.get("question-answering")
    found = calibration.requests(spec(bert, task=task.NAME), huggingface.describe(bert), wanted, task)
    every = calibration.requests(
        spec(bert, task=task.NAME), huggingface.describe(bert), replace(wanted, facts={}), task
    )
    assert {arrays["input_ids"].shape[1] for arrays in found} == {1}
    assert len(found) == sum(arrays["input_ids"].shape[1] == 1 for arrays in every) < len(every)
