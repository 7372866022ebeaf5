"""What an engine is asked while it is built, and what a plan of each precision must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.formats import huggingface
from repo_builder.formats import onnx as onnx_format
from repo_builder.pipeline import plans
from repo_builder.proof import Tolerance
from repo_builder.spec import ModelSpec, from_flags
from repo_builder.tasks import calibration, plain_tensors
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
    assert len(calibration.requests(spec(folder), huggingface.describe(folder), windows)) == 8
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
