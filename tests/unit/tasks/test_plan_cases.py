"""Inputs of plans: inside the union of the profiles, at the ends of each; samples outside are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_to_tensorrt
from repo_builder.errors import ConversionError, SpecError
from repo_builder.formats import batch, huggingface
from repo_builder.formats import onnx as onnx_format
from repo_builder.pipeline import plans
from repo_builder.spec import ModelSpec, from_flags
from repo_builder.tasks import plain_tensors, plan_cases, plan_model, string_lookup, text
from repo_builder.tensorrt import installation, versions
from repo_builder.tensors import TensorSpec
from tests import tiny_transformers

H200 = installation.Gpu("NVIDIA H200", "9.0", "580", 1 << 30)
KINDS = ("min", "opt", "max")


def ends(*sizes: list[int]) -> dict[str, list[int]]:
    return dict(zip(KINDS, sizes, strict=True))


def plan(profiles: list[dict[str, Any]], *inputs: TensorSpec, batched: str | None = "batch") -> Artifact:
    facts = {"profiles": profiles}
    return Artifact(Path("m.plan"), "tensorrt_plan", inputs, (), batched, ("m.plan",), facts)


BUCKETS = [{"x": ends([1, 16], [4, 24], [8, 32])}, {"x": ends([1, 33], [4, 64], [8, 128])}]
ROWS = TensorSpec("x", "FP32", ("batch", "sequence"))


def test_random_inputs_have_the_sizes_of_every_profile() -> None:
    """What the sizes 2, 5 and 8 of a free axis are outside of: buckets that begin at 16."""
    engine = plan(BUCKETS, ROWS)
    found = plain_tensors.requests(spec("m.onnx"), engine)
    assert len(found) >= 8
    assert {arrays["x"].shape for arrays in found} == {(1, n) for n in (16, 24, 32, 33, 64, 128)}
    assert [plan_cases.outside(engine, arrays) for arrays in found] == [""] * len(found)


def test_values_of_shape_tensors_stay_in_their_range() -> None:
    values = {"size": ends([4, 1], [8, 2], [16, 3])}
    profile = {"x": ends([4], [16], [48]), "values": values}
    engine = plan([profile], TensorSpec("x", "FP32", ("n",)), TensorSpec("size", "INT64", (2,)), batched=None)
    found = plain_tensors.requests(spec("m.onnx"), engine)
    assert {tuple(arrays["size"]) for arrays in found} == {(4, 1), (8, 2), (16, 3)}
    assert {arrays["size"].dtype for arrays in found} == {np.dtype(np.int64)}
    given = {"x": np.zeros(4, np.float32), "size": np.array([17, 1])}
    assert plan_cases.outside(engine, given) == "no profile takes x [4], size = [17, 1]"
    assert plan_model.largest_batch(engine) == 48


def test_samples_that_no_profile_takes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", x=np.zeros((1, 8), np.float32))
    asked = spec("m.onnx", samples={"arrays": [str(tmp_path / "short.npz")]})
    with pytest.raises(SpecError, match=r"short\.npz: no profile takes x \[1, 8\]") as caught:
        plain_tensors.requests(asked, plan(BUCKETS, ROWS))
    assert "widen shapes or tensorrt.profiles" in str(caught.value)
    assert len(plain_tensors.requests(asked, plan([], ROWS))) == 1


def test_a_scalar_in_a_row_is_proved_as_it_is_served(tmp_path: Path) -> None:
    source = scalar(tmp_path)
    proof = plain_tensors.proof(spec(str(source.path), engine="onnx"), source, source, None)
    assert [case.outputs["best"].shape for case in proof.cases] == [(1, 1)] * len(proof.cases)


def test_the_corners_are_whole_batches() -> None:
    engine = plan(BUCKETS, ROWS)
    found = [arrays["x"].shape for arrays in plans.corners(engine, BUCKETS)]
    assert found == [(1, 16), (4, 24), (8, 32), (1, 33), (4, 64), (8, 128)]


def spec(source: str, **fields: Any) -> ModelSpec:
    return from_flags(source, **{"engine": "tensorrt", **fields}).models[0]


def scalar(folder: Path) -> Artifact:
    """best = argmax(x): INT64 [batch]."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["x"], ["best"], axis=-1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n"])],
        [helper.make_tensor_value_info("best", TensorProto.INT64, ["batch"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return batch.prove_batch(onnx_format.describe(folder / "m.onnx"), onnx_format.run)


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a GPU machine as far as a plan's limits are asked."""
    found = installation.Installation(Path("python"), "tensorrt", "10.16.0", H200)
    builder = onnx_to_tensorrt.Builder(found, versions.abilities(found.module, found.version))
    monkeypatch.setattr(onnx_to_tensorrt, "builder", lambda *_: builder)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the edge is called with; a stand-in gives the graph back in place of a plan."""
    seen: dict[str, Any] = {}

    def convert(source: Artifact, out: Path, **arguments: Any) -> Artifact:
        seen.update(arguments, source=source)
        return source

    monkeypatch.setattr(onnx_to_tensorrt, "convert", convert)
    return seen


@pytest.mark.torch
@pytest.mark.usefixtures("h200")
def test_a_text_plan_is_calibrated_within_buckets_that_only_the_profiles_name(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    from repo_builder import tasks
    from repo_builder.convert import torch_to_onnx

    folder = tiny_transformers.save("bert", "sequence-classification", tmp_path / "bert")
    buckets = [{"sequence": {"min": 12, "opt": 12, "max": 16}}, {"sequence": {"min": 17, "opt": 24, "max": 32}}]
    model = spec(str(folder), tensorrt={"profiles": buckets}, batching={"max_batch_size": 4})
    source = huggingface.describe(folder)
    task, _ = tasks.choose(model, source)
    program: Any = task.head(source, model)
    graph = torch_to_onnx.convert(program, tmp_path / "model.onnx", opset=18, ir_version=8)
    graph = batch.prove_batch(graph, onnx_format.run)
    made = plans.Plan(model, source, releases.newest()).make(graph, tmp_path / "model.plan", lambda _: None)

    lengths = {case.inputs["input_ids"].shape[1] for case in asked["cases"]}
    assert (min(lengths), max(lengths)) == (12, 32)
    assert {a["input_ids"].shape for a in asked["corners"]} == {(1, 12), (4, 12), (4, 16), (1, 17), (4, 24), (4, 32)}
    assert text.longest(model) == 32
    assert str(asked["source"].outputs[0]) == "labels INT64[batch, 3]"
    assert made.facts[string_lookup.FACT] == program.tables
    served = {one.name.rpartition("_")[2]: one.config for one in task.models(model, source, with_profiles(made, asked))}
    assert served["tokenizer"].parameters["pad_lengths"].string_value == "12"
    assert served["tokenizer"].parameters["max_length"].string_value == "32"
    assert "strings" in served


def with_profiles(made: Artifact, asked: dict[str, Any]) -> Artifact:
    facts = {**made.facts, "profiles": asked["profiles"]}
    return Artifact(made.path, made.format, made.inputs, made.outputs, made.batch, made.files, facts)


@pytest.mark.usefixtures("h200")
def test_a_model_that_takes_text_is_refused_before_it_is_converted(tmp_path: Path) -> None:
    source = Artifact(tmp_path / "m.onnx", "onnx", (TensorSpec("TEXT", "BYTES", ("batch", 1)),))
    with pytest.raises(ConversionError, match="the input TEXT"):
        plans.Plan(spec("m.onnx"), source, releases.newest())
