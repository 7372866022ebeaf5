"""The batch dimension is proved by running, and refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder.errors import SignatureError
from repo_builder.formats import onnx as format_onnx
from repo_builder.formats.batch import prove_batch
from repo_builder.formats.examples import example_inputs
from repo_builder.tensors import TensorSpec
from tests import models

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Tensors = list[tuple[str, int, list[Any]]]


def _proved(
    tmp_path: Path, inputs: Tensors, outputs: Tensors, *nodes: Any, constants: dict[str, Any] | None = None
) -> Any:
    weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    model = models.onnx_model(inputs, outputs, list(nodes), weights)
    onnx.save(model, str(tmp_path / "m.onnx"))
    return prove_batch(format_onnx.describe(tmp_path / "m.onnx"), format_onnx.run)


def test_a_batch_is_proved(tmp_path: Path) -> None:
    artifact = prove_batch(format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx")), format_onnx.run)
    assert artifact.batch == "batch"
    assert "batch_refused" not in artifact.facts


def test_one_batch_under_many_names_gets_one_name(tmp_path: Path) -> None:
    artifact = _proved(
        tmp_path,
        [("x", FLOAT, ["a", 2]), ("y", FLOAT, ["b", 2])],
        [("z", FLOAT, [None, 2])],
        helper.make_node("Add", ["x", "y"], ["z"]),
    )
    assert artifact.batch == "a"
    assert [spec.shape for spec in (*artifact.inputs, *artifact.outputs)] == [("a", 2)] * 3


@pytest.mark.parametrize("size", [1, 4])
def test_a_static_axis_is_no_batch(tmp_path: Path, size: int) -> None:
    artifact = prove_batch(format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx", size)), format_onnx.run)
    assert artifact.batch is None
    assert artifact.facts["batch_refused"] == f"axis 0 of input 'x' is static ({size})"


def test_a_mean_over_the_batch_is_found(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    artifact = _proved(
        tmp_path, [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], mean, helper.make_node("Sub", ["x", "m"], ["y"])
    )
    assert artifact.batch is None
    assert "row 0 of output 'y' in a batch of 2 differs from that row alone by" in artifact.facts["batch_refused"]


def test_an_output_of_twice_the_batch_is_found(tmp_path: Path) -> None:
    concat = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    artifact = _proved(tmp_path, [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["2*n", 2])], concat)
    assert artifact.batch is None
    assert artifact.facts["batch_refused"] == "output 'y' has the shape [4, 2] for a batch of 2"


def test_a_transposed_output_is_found(tmp_path: Path) -> None:
    turn = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    artifact = _proved(tmp_path, [("x", FLOAT, ["n", "s"])], [("y", FLOAT, ["s", "n"])], turn)
    assert artifact.batch is None
    assert artifact.facts["batch_refused"] == "output 'y' has the shape [5, 2] for a batch of 2"


def test_a_square_input_has_no_batch(tmp_path: Path) -> None:
    artifact = _proved(
        tmp_path, [("x", FLOAT, ["n", "n"])], [("y", FLOAT, ["n", "n"])], helper.make_node("Relu", ["x"], ["y"])
    )
    assert artifact.facts["batch_refused"] == "'n' is axis 0 and also axis 1 of input 'x'"


def test_integers_must_be_equal(tmp_path: Path) -> None:
    total = helper.make_node("CumSum", ["x", "zero"], ["y"])
    artifact = _proved(
        tmp_path, [("x", INT64, ["n", 8])], [("y", INT64, ["n", 8])], total, constants={"zero": np.int64(0)}
    )
    assert artifact.batch is None
    assert artifact.facts["batch_refused"].endswith("differs from that row alone (values are not equal)")


def test_a_scalar_output_is_no_row(tmp_path: Path) -> None:
    artifact = _proved(
        tmp_path, [("x", FLOAT, ["n"])], [("y", FLOAT, [])], helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    )
    assert artifact.facts["batch_refused"] == "output 'y' is a scalar"


def test_a_model_that_fails_is_not_proved_and_larger_sizes_are_tried(tmp_path: Path) -> None:
    x: Tensors = [("x", FLOAT, ["n", 1, "h"])]
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = np.ones((1, 1, 16), np.float32)
    artifact = _proved(tmp_path, x, [("y", FLOAT, ["n", 1, "o"])], conv, constants={"w": weight})
    assert artifact.batch == "n"
    reshape = helper.make_node("Reshape", ["x", "s"], ["y"])
    refused = _proved(tmp_path, x, [("y", FLOAT, ["n", 11])], reshape, constants={"s": np.array([-1, 11])})
    assert refused.batch is None
    assert "running batches of 1, 2 and 3 failed: ONNX Runtime failed on m.onnx" in refused.facts["batch_refused"]


def test_example_inputs_are_seeded_and_valid() -> None:
    specs = [
        TensorSpec("input_ids", "INT64", ("b", "s")),
        TensorSpec("attention_mask", "INT64", ("b", "s")),
        TensorSpec("x", "FP16", ("b", 3)),
        TensorSpec("t", "BYTES", ("b",)),
        TensorSpec("scalar", "FP32", ()),
        TensorSpec("flag", "BOOL", (2,)),
    ]
    first = example_inputs(specs, {"b": 2, "s": 40}, seed=1)
    again = example_inputs(specs, {"b": 2, "s": 40}, seed=1)
    other = example_inputs(specs, {"b": 2, "s": 40}, seed=2)
    assert list(first) == [spec.name for spec in specs]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["input_ids"], other["input_ids"])
    assert set(first["input_ids"].reshape(-1).tolist()) == {0, 1}
    assert first["attention_mask"].all()
    assert first["flag"].all()
    assert (first["x"].dtype, first["x"].shape) == (np.float16, (2, 3))
    assert set(first["t"].tolist()) <= {b"0", b"1"}
    assert first["scalar"].shape == ()


def test_giant_examples_are_refused_before_they_are_made() -> None:
    with pytest.raises(SignatureError, match=r"an example of input x FP32\[n, 1099511627776\] would have"):
        example_inputs([TensorSpec("x", "FP32", ("n", 1 << 40))])
