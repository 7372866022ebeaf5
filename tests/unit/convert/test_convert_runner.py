"""The runner against files that lie: each planted lie is found and named."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_samples as graphs
import pytest
from onnx import TensorProto, helper

from repo_builder.convert.cases import CheckedCase, cases
from repo_builder.convert.runner import check, compare
from repo_builder.errors import ConversionError, RepoBuilderError
from repo_builder.formats import onnx as onnx_format
from repo_builder.tensors import TensorSpec

INPUTS = (TensorSpec("x", "FP32", ("batch", 3)),)
OUTPUTS = (TensorSpec("y", "FP32", ("batch", 2)),)
EXAMPLES = {"x": np.array([[1.0, -2.0, 3.0]], dtype=np.float32)}


def source(inputs):
    return [np.maximum(inputs["x"] @ np.full((3, 2), 2.0, dtype=np.float32), 0)]


CASES = cases(INPUTS, EXAMPLES, source)


def verdict(path, inputs=INPUTS, outputs=OUTPUTS, opset=18, ir_version=9, asked=CASES):
    return check(path, inputs, outputs, asked, opset=opset, ir_version=ir_version)


def test_an_honest_file(tmp_path):
    accepted = verdict(graphs.linear(tmp_path / "m.onnx"))
    assert accepted.artifact.inputs == INPUTS
    assert accepted.artifact.outputs == OUTPUTS
    assert accepted.max_abs_error["y"] < 1e-5
    assert accepted.cases == len(CASES) >= 6


@pytest.mark.parametrize(
    ("made", "asked", "text"),
    [
        ({"opset": 17}, {}, "asked for opset 18, the file has 17"),
        ({"ir_version": 10}, {}, "asked for IR version 9 at most, the file has 10"),
        ({"batch": "s77"}, {}, r"has the input x FP32\[s77, 3\] where x FP32\[batch, 3\] was declared"),
        ({"batch": 2}, {}, r"has the input x FP32\[2, 3\] where x FP32\[batch, 3\] was declared"),
        ({}, {"inputs": (TensorSpec("z", "FP32", ("batch", 3)),)}, r"inputs are \['x'\], not \['z'\]"),
        ({}, {"inputs": (TensorSpec("x", "INT64", ("batch", 3)),)}, r"where x INT64\[batch, 3\] was declared"),
        ({}, {"outputs": (TensorSpec("y", "FP32", ("batch", 4)),)}, r"where y FP32\[batch, 4\] was declared"),
        (
            {"weight": 2.001},
            {},
            r"answers differently: max abs error 0\.00\d+ \(allowed 0\.000\d+\) at output y for x\[1, 3\]",
        ),
    ],
)
def test_lies(tmp_path, made, asked, text):
    with pytest.raises(ConversionError, match=text):
        verdict(graphs.linear(tmp_path / "m.onnx", **made), **asked)


def test_a_branch_that_was_baked(tmp_path):
    """The file knows only the branch for positive sums: the cases reach the other one."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    both = cases(INPUTS, EXAMPLES, lambda a: [a["x"] * (2 if a["x"].sum() > 0 else -2)])
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        verdict(graphs.save(graph, tmp_path / "m.onnx"), outputs=(TensorSpec("y", "FP32", ("batch", 3)),), asked=both)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda y: y[:, :1], r"output y is float32\[1, 2\] where the source gives float32\[1, 1\]"),
        (lambda y: y.astype(np.float64), r"output y is float32\[1, 2\] where the source gives float64"),
        (lambda y: np.where(y > 0, np.inf, y).astype(np.float32), "NaN or infinity at output y differ for"),
    ],
)
def test_other_answers(tmp_path, answer, text):
    other = cases(INPUTS, EXAMPLES, lambda a: [answer(source(a)[0])])
    with pytest.raises(ConversionError, match=text):
        verdict(graphs.linear(tmp_path / "m.onnx"), asked=other)


def test_integers_must_be_equal(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", 3])],
    )
    path = graphs.save(graph, tmp_path / "m.onnx")
    outputs = (TensorSpec("y", "INT64", ("batch", 3)),)
    truncated = cases(INPUTS, EXAMPLES, lambda a: [a["x"].astype(np.int64)])
    assert verdict(path, outputs=outputs, asked=truncated).max_abs_error == {"y": 0.0}
    rounded = cases(INPUTS, EXAMPLES, lambda a: [np.floor(a["x"]).astype(np.int64)])
    with pytest.raises(ConversionError, match=r"answers differently: \d+ of \d+ values at output y for"):
        verdict(path, outputs=outputs, asked=rounded)


def test_ranked_entries_may_change_places_where_rounding_alone_parts_them(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["values", "order"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("order", TensorProto.INT64, ["batch", 4]),
        ],
        [helper.make_tensor("k", TensorProto.INT64, [1], [4])],
    )
    artifact = onnx_format.describe(graphs.save(graph, tmp_path / "m.onnx"))
    x = np.array([[0.5, 0.5 + 6e-8, 0.3, 0.1]], dtype=np.float32)

    def case(order):
        return CheckedCase({}, {"x": x}, (np.array([[0.5, 0.5, 0.3, 0.1]], np.float32), np.array([order])))

    assert compare(artifact, [case([0, 1, 2, 3])], {"order": "values"})["order"] == 0.0
    with pytest.raises(ConversionError, match="2 of 4 values at output order"):
        compare(artifact, [case([0, 1, 2, 3])])
    with pytest.raises(ConversionError, match="2 of 4 values at output order"):
        compare(artifact, [case([0, 1, 3, 2])], {"order": "values"})


def test_one_name_for_two_values(tmp_path):
    model = onnx.load(str(graphs.linear(tmp_path / "m.onnx")))
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "y"
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(RepoBuilderError, match=r"onnx\.checker .* refuses m\.onnx"):
        verdict(tmp_path / "m.onnx")
