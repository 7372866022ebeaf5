"""The task ``tensors``: how scalars are served, what sample files may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_to_onnx
from repo_builder.errors import SignatureError
from repo_builder.formats import batch
from repo_builder.formats import onnx as onnx_format
from repo_builder.spec import ModelSpec, from_flags
from repo_builder.tasks import plain_tensors
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tensors import TensorSpec


def test_a_scalar_without_a_batch_is_served_as_one_value(tmp_path: Path) -> None:
    source = file(tmp_path, "Add", {"a": (TensorProto.FLOAT, []), "b": (TensorProto.FLOAT, [2])}, [2])
    config = engine_model("m", spec(source), source).config
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in config.input] == [[1], [2]]
    assert not config.input[0].HasField("reshape"), "the server refuses an empty reshape without a batch"
    proof = plain_tensors.proof(spec(source), source, source, None)
    case = proof.cases[0]
    assert {name: array.shape for name, array in case.inputs.items()} == {"a": (1,), "b": (2,)}
    np.testing.assert_allclose(case.outputs["y"], case.inputs["a"] + case.inputs["b"], rtol=1e-6)


def test_a_scalar_sample_is_a_scalar(tmp_path: Path) -> None:
    source = file(tmp_path, "Neg", {"a": (TensorProto.FLOAT, [])}, [])
    np.savez(tmp_path / "one.npz", a=np.float32(3))
    asked = spec(source, samples={"arrays": [str(tmp_path / "one.npz")]})
    (case,) = plain_tensors.proof(asked, source, source, None).cases
    assert case.inputs["a"].tolist() == [3]
    assert case.outputs["y"].tolist() == [-3]


def test_an_input_that_is_always_empty_is_served_with_an_open_axis(tmp_path: Path) -> None:
    x, axes = (TensorProto.FLOAT, [2, 3]), (TensorProto.INT64, [0])
    source = file(tmp_path, "ReduceSum", {"x": x, "axes": axes}, [1, 1])
    (tmp_path / "work").mkdir()
    engine = onnx_to_onnx.convert(source, tmp_path / "work" / "model.onnx", opset=17, ir_version=8)
    engine = batch.prove_batch(engine, onnx_format.run)
    assert engine.inputs[1].shape == ("axes_dim0",)
    assert [list(tensor.dims) for tensor in engine_model("m", spec(source), engine).config.input] == [[2, 3], [-1]]
    proof = plain_tensors.proof(spec(source), source, engine, None)
    assert {case.inputs["axes"].shape for case in proof.cases} == {(0,)}
    np.testing.assert_allclose(proof.cases[0].outputs["y"], proof.cases[0].inputs["x"].sum(keepdims=True), rtol=1e-5)


def test_an_empty_axis_is_no_batch(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [0, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    source = onnx_format.describe(tmp_path / "m.onnx")
    (tmp_path / "work").mkdir()
    engine = onnx_to_onnx.convert(source, tmp_path / "work" / "model.onnx", opset=17, ir_version=8)
    engine = batch.prove_batch(engine, onnx_format.run)
    assert engine.batch is None
    assert engine.facts["batch_refused"] == "axis 0 of input 'x' is empty"


def test_other_engines_refuse_scalars_without_a_batch(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    engine = Artifact(tmp_path / "model.pt", "torchscript", (TensorSpec("k", "INT64", ()),), files=("model.pt",))
    with pytest.raises(SignatureError, match="'k' is a scalar") as caught:
        engine_model("m", from_flags("model.pt", engine="torchscript").models[0], engine)
    assert "of pytorch models Triton serves scalars only as rows of a batch" in str(caught.value)


def test_sample_files_hold_strings(tmp_path: Path) -> None:
    source = file(tmp_path, "Identity", {"a": (TensorProto.STRING, [2])}, [2])
    np.savez(tmp_path / "words.npz", a=np.array(["tea", "Füße 茶"]))
    asked = spec(source, samples={"arrays": [str(tmp_path / "words.npz")]})
    (case,) = plain_tensors.proof(asked, source, source, None).cases
    assert case.outputs["y"].tolist() == [b"tea", "Füße 茶".encode()]


def spec(source: Artifact, **fields: object) -> ModelSpec:
    return from_flags(str(source.path), **fields).models[0]


def file(folder: Path, operator: str, inputs: dict[str, tuple[int, list[int]]], shape: list[int]) -> Artifact:
    """y = operator(inputs)."""
    kind = next(iter(inputs.values()))[0]
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), ["y"])],
        "g",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return onnx_format.describe(folder / "m.onnx")
