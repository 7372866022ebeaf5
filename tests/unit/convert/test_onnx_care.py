"""ONNX care: wrong stamps, names, dropped inputs, simplification that lies, packing, deterministic bytes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import TensorProto, helper, numpy_helper

from repo_builder.convert import onnx_care, onnx_graph
from repo_builder.errors import ConversionError, PathEscapeError, SourceCorruptError
from repo_builder.formats import onnx as onnx_format
from repo_builder.formats import onnx_stamp
from repo_builder.tensors import TensorSpec
from tests import models

X, Y = TensorSpec("x", "FP32", ("batch", 4)), TensorSpec("y", "FP32", ("batch", 4))


def save(path: Path, nodes: list[Any], weights: dict[str, Any] | None = None, **more: Any) -> Path:
    """A file with the input ``serving_default_x:0`` and the output ``out:0``."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    inputs = more.pop("inputs", [("serving_default_x:0", TensorProto.FLOAT, ["unk__12", 4])])
    outputs = more.pop("outputs", [("out:0", TensorProto.FLOAT, ["unk__12", 4])])
    onnx.save(models.onnx_model(inputs, outputs, nodes, tensors, **more), str(path))
    return path


def foldable(path: Path, **more: Any) -> Path:
    """``y = reshape(x, (batch, -1)) * (c1 + c2)`` in eight nodes, of which one is needed."""
    nodes = [
        helper.make_node("Shape", ["serving_default_x:0"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["size"]),
        helper.make_node("Unsqueeze", ["size", "axes"], ["sizes"]),
        helper.make_node("Concat", ["sizes", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["serving_default_x:0", "wanted"], ["flat"]),
        helper.make_node("Add", ["c1", "c2"], ["c"]),
        helper.make_node("Mul", ["flat", "c"], ["h"]),
        helper.make_node("Identity", ["h"], ["out:0"]),
    ]
    c = np.array([1, 2, 3, 4], np.float32)
    weights = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1]), "c1": c, "c2": c}
    return save(path, nodes, weights, **more)


def care(path: Path, inputs: Any = (X,), outputs: Any = (Y,), opset: int = 20, **more: Any) -> Any:
    return onnx_care.care(path, path.with_name("out.onnx"), inputs, outputs, opset=opset, ir_version=10, **more)


def run(path: Path, *arrays: np.ndarray[Any, Any]) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})[0]


def test_names_dims_and_simplification(tmp_path: Path) -> None:
    made = care(foldable(tmp_path / "in.onnx"))
    assert made.notes == ("simplified by onnxslim: 8 nodes became 1",)
    assert (made.opset, made.files) == (17, ("out.onnx",))
    artifact = onnx_format.describe(tmp_path / "out.onnx")
    assert (artifact.inputs, artifact.outputs) == ((X,), (Y,))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x), x * np.array([2, 4, 6, 8], np.float32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_without_simplification_nodes_stay(tmp_path: Path) -> None:
    assert care(foldable(tmp_path / "in.onnx"), simplify=False).notes == ()
    assert len(onnx.load(str(tmp_path / "out.onnx")).graph.node) == 8


def test_without_onnxslim_nodes_stay_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxslim" else find(name))
    made = care(foldable(tmp_path / "in.onnx"))
    assert made.notes == ("not simplified: pip install 'repo-builder[simplify]' brings onnxslim",)
    assert len(onnx.load(str(tmp_path / "out.onnx")).graph.node) == 8


def test_a_simplification_that_changes_answers_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxslim.slim

    def lying(model: Any) -> Any:
        made = real(model)
        (weight,) = made.graph.initializer
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
        return made

    monkeypatch.setattr(onnxslim, "slim", lying)
    (note,) = care(foldable(tmp_path / "in.onnx")).notes
    assert note.startswith("not simplified: the file answers differently: max abs error")
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x)[0], [2, 4, 6, 8])


def test_a_simplification_that_fails_or_grows_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: Any) -> Any:
        raise KeyError("node")

    def growing(model: Any) -> Any:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(100, np.float32), "more"))
        return model

    monkeypatch.setattr(onnxslim, "slim", failing)
    assert care(foldable(tmp_path / "in.onnx")).notes == ("not simplified: onnxslim fails (KeyError: 'node')",)
    monkeypatch.setattr(onnxslim, "slim", growing)
    (note,) = care(foldable(tmp_path / "in.onnx")).notes
    assert note.startswith("not simplified: ")
    assert " bytes would become " in note


def test_random_nodes_are_not_simplified(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["serving_default_x:0"], ["noise"]),
        helper.make_node("Add", ["serving_default_x:0", "noise"], ["out:0"]),
    ]
    (note,) = care(save(tmp_path / "in.onnx", nodes)).notes
    assert note == "not simplified: the source model answers differently when the same inputs are sent twice"


def mean(path: Path, opset: int) -> Path:
    """ReduceMean with the attribute ``axes``, as until opset 17, and Softmax, whose meaning changed with opset 13."""
    nodes = [
        helper.make_node("ReduceMean", ["serving_default_x:0"], ["m"], axes=[1], keepdims=1, name="mean0"),
        helper.make_node("Sub", ["serving_default_x:0", "m"], ["d"]),
        helper.make_node("Softmax", ["d"], ["out:0"]),
    ]
    return save(path, nodes, opset=opset)


def test_a_stamp_that_is_too_new_is_mended(tmp_path: Path) -> None:
    made = care(mean(tmp_path / "in.onnx", 21))
    assert made.opset == 17
    assert made.notes[0] == (
        "the file is stamped opset 21, but node 'mean0': ReduceMean of opset 21 has no attribute 'axes'; all nodes fit "
        "opsets 1 to 17; stamped 17 (of ReduceMean, Softmax, Sub the answers decide)"
    )
    x = np.array([[0, 0, 0, 1]], np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), np.exp(x) / np.exp(x).sum(), rtol=1e-6)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_a_stamp_that_is_too_old_is_mended(tmp_path: Path) -> None:
    path = save(tmp_path / "in.onnx", [helper.make_node("Gelu", ["serving_default_x:0"], ["out:0"])], opset=11)
    made = care(path)
    assert made.opset == 20
    assert "the node that makes 'out:0': opset 11 has no operator Gelu" in made.notes[0]


def test_nodes_of_no_one_opset_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["serving_default_x:0"], ["m"], axes=[1], name="old"),
        helper.make_node("Gelu", ["m"], ["out:0"], name="new"),
    ]
    with pytest.raises(ConversionError) as caught:
        care(save(tmp_path / "in.onnx", nodes, opset=17))
    assert "node 'new': opset 17 has no operator Gelu; no opset has all of its nodes" in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_stamps_inside_branches_are_looked_at() -> None:
    branch = helper.make_graph(
        [helper.make_node("Squeeze", ["x"], ["b"], axes=[0], name="inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    model = models.onnx_model(
        [("c", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [1, 4])],
        [("y", TensorProto.FLOAT, [4])],
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        opset=13,
    )
    stamp = onnx_stamp.look(model)
    assert stamp.misfits[0] == "node 'inner': Squeeze of opset 13 has no attribute 'axes'"
    assert (stamp.fitting[-1], stamp.nearest) == (12, 12)


def test_right_stamps_stay() -> None:
    for opset in (7, 9, 11, 13, 17, 21, 23):
        nodes = [helper.make_node("Relu", ["x"], ["y"])]
        model = models.onnx_model([("x", 1, [4])], [("y", 1, [4])], nodes, opset=opset)
        assert onnx_stamp.look(model) == onnx_stamp.Stamp(opset)


def test_a_newer_file_is_lowered(tmp_path: Path) -> None:
    assert care(foldable(tmp_path / "in.onnx", opset=20), opset=17).opset == 17


def test_unused_and_dropped_inputs_stay_in_the_signature(tmp_path: Path) -> None:
    u, gone = TensorSpec("u", "INT64", ("batch", 2)), TensorSpec("gone", "FP16", ("batch",))
    inputs = [("u:0", TensorProto.INT64, ["b", 2]), ("serving_default_x:0", TensorProto.FLOAT, ["b", 4])]
    made = care(foldable(tmp_path / "in.onnx", inputs=inputs), inputs=(u, gone, X))
    assert made.notes == (
        "input 'u' is read by no node; it stays in the signature",
        "input 'gone' is read by no node; it stays in the signature",
        "simplified by onnxslim: 8 nodes became 1",
    )
    assert onnx_format.describe(tmp_path / "out.onnx").inputs == (u, gone, X)
    x = np.ones((2, 4), np.float32)
    made = run(tmp_path / "out.onnx", np.ones((2, 2), np.int64), np.ones(2, np.float16), x)
    np.testing.assert_array_equal(made[0], [2, 4, 6, 8])


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ((X, X), (Y, Y), "the file has the outputs out:0"),
        ((TensorSpec("z", "FP32", ("batch", 4)), X), (Y,), None),
        ((), (Y,), "the file has the inputs serving_default_x:0"),
        ((TensorSpec("x", "FP16", ("batch", 4)),), (Y,), "the file's input 'serving_default_x:0' is FP32 where x FP16"),
        ((TensorSpec("x", "FP32", ("batch", 5)),), (Y,), r"'serving_default_x:0' has the shape \[-1, 4\] where x"),
        ((X,), (TensorSpec("y", "FP32", ("batch",)),), r"the file's output 'out:0' has the shape \[-1, 4\] where y"),
    ],
)
def test_other_tensors_than_the_signature(tmp_path: Path, inputs: Any, outputs: Any, text: str | None) -> None:
    path = foldable(tmp_path / "in.onnx")
    if text is None:
        assert "input 'z' is read by no node; it stays in the signature" in care(path, inputs, outputs).notes
        return
    with pytest.raises(ConversionError, match=text):
        care(path, inputs, outputs)


def test_shapes_that_contradict_the_nodes_are_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "in.onnx",
        [helper.make_node("Relu", ["serving_default_x:0"], ["out:0"])],
        outputs=[("out:0", TensorProto.FLOAT, ["unk__12", None])],
    )
    with pytest.raises(SourceCorruptError, match="ShapeInferenceError"):
        care(path, outputs=(TensorSpec("y", "FP32", ("batch", 5)),))


def test_external_data_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.linear_onnx(tmp_path / "in.onnx", external=True)
    specs = ((X,), (TensorSpec("y", "FP32", ("batch", 3)),))
    x = np.ones((2, 4), np.float32)
    wanted = run(tmp_path / "in.onnx", x)
    assert care(tmp_path / "in.onnx", *specs).files == ("out.onnx",)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x), wanted)
    assert all(not t.external_data for t in onnx.load(str(tmp_path / "out.onnx")).graph.initializer)
    monkeypatch.setattr(onnx_graph, "EXTERNAL_FROM", 1)
    made = care(tmp_path / "in.onnx", *specs)
    assert made.files == ("out.onnx", "out.onnx.data")
    assert made.notes == ("not simplified: its weights are too large for one protobuf message",)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x), wanted)


def test_external_data_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"\0" * 48)
    (tmp_path / "inner").mkdir()
    path = models.linear_onnx(tmp_path / "inner" / "in.onnx", external=True)
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../w"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PathEscapeError):
        care(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = foldable(tmp_path / "in.onnx")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(SourceCorruptError, match=r"in.onnx does not parse as ONNX"):
        care(path)


def test_no_trace_of_where_it_was_made_and_the_same_bytes_again(tmp_path: Path) -> None:
    path = foldable(tmp_path / "in.onnx")
    model = onnx.load(str(path))
    model.producer_name, model.doc_string = "someone", "/home/someone/model.py"
    model.metadata_props.add(key="source", value="/home/someone/model.py")
    model.graph.node[0].doc_string = "/home/someone/model.py"
    onnx.save(model, str(path))
    program = (
        "import sys; from pathlib import Path; from repo_builder.convert import onnx_care\n"
        "from repo_builder.tensors import TensorSpec as T\n"
        "x, y = (T(n, 'FP32', ('batch', 4)) for n in 'xy')\n"
        "onnx_care.care(Path(sys.argv[1]), Path(sys.argv[2]), [x], [y], opset=20, ir_version=10)"
    )
    written = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.onnx"
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", program, str(path), str(out)], env=environment, check=True)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert b"someone" not in written[0]
