"""An ONNX source: taken as it is, lowered with the same answers, or refused before anything is built."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_samples as graphs
import pytest
from onnx import TensorProto, helper, numpy_helper

from repo_builder.convert.onnx_to_onnx import convert
from repo_builder.errors import SourceCorruptError, TargetError
from repo_builder.formats import onnx as onnx_format
from repo_builder.tensors import TensorSpec


def test_a_source_that_fits_is_not_rewritten(tmp_path):
    source = onnx_format.describe(graphs.linear(tmp_path / "classifier.onnx", opset=17, ir_version=8))
    out = tmp_path / "out"
    out.mkdir()
    made = convert(source, out / "model.onnx", opset=18, ir_version=9)
    assert made.path == source.path
    assert made.files == ("classifier.onnx",)
    assert made.provenance == {"exporter": "none: taken as it is", "opset": 17, "ir_version": 8}
    assert list(out.iterdir()) == []


def test_external_data_keeps_its_names(tmp_path):
    model = onnx.load(str(graphs.linear(tmp_path / "m.onnx")))
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    made = convert(onnx_format.describe(tmp_path / "m.onnx"), tmp_path / "model.onnx", opset=18, ir_version=9)
    assert made.files == ("m.onnx", "w.bin")


@pytest.mark.parametrize(("opset", "ir_version"), [(17, 8), (20, 8), (14, 7)])
def test_a_newer_source_is_lowered(tmp_path, opset, ir_version):
    source = onnx_format.describe(graphs.linear(tmp_path / "m.onnx", opset=20, ir_version=10))
    steps = []
    made = convert(source, tmp_path / "model.onnx", opset=opset, ir_version=ir_version, progress=steps.append)
    assert (made.facts["opset"], made.facts["ir_version"]) == (opset, ir_version)
    assert made.path == tmp_path / "model.onnx"
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)
    assert made.provenance["from_opset"] == 20
    assert made.provenance["max_abs_error"] == {"y": 0.0}
    assert steps == [f"lowering opset 20 to {opset}"]
    x = np.ones((3, 3), dtype=np.float32)
    assert np.array_equal(onnx_format.run(made, {"x": x})["y"], onnx_format.run(source, {"x": x})["y"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "model.onnx"]


def test_an_operator_that_the_older_opset_lacks(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    source = onnx_format.describe(graphs.save(graph, tmp_path / "gelu.onnx", opset=20))
    with pytest.raises(TargetError) as caught:
        convert(source, tmp_path / "model.onnx", opset=19, ir_version=9)
    assert "gelu.onnx has opset 20 and IR version 9, and cannot be lowered: onnx cannot convert" in str(caught.value)
    assert "Gelu" in str(caught.value)
    assert "expected: opset 19 and IR version 9 at most" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gelu.onnx"]


def test_a_source_that_takes_large_images_only(tmp_path):
    """Small made-up sizes are refused by the graph itself; the larger ones are tried then."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, "y_height", "y_width"])],
        [numpy_helper.from_array(np.ones((1, 1, 40, 40), dtype=np.float32), "w")],
    )
    source = onnx_format.describe(graphs.save(graph, tmp_path / "m.onnx", ir_version=10))
    made = convert(source, tmp_path / "model.onnx", opset=18, ir_version=9)
    assert made.facts["ir_version"] == 9


def test_the_callers_examples_are_used(tmp_path):
    source = onnx_format.describe(graphs.branch(tmp_path / "m.onnx"))
    examples = {"x": np.full((5, 3), 7.0, dtype=np.float32)}
    made = convert(source, tmp_path / "model.onnx", opset=18, ir_version=8, examples=examples)
    assert made.facts["ir_version"] == 8
    assert made.provenance["max_abs_error"] == {"y": 0.0}


def small(path, nodes, inputs, outputs, tensors=(), **more):
    def told(values):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

    return graphs.save(helper.make_graph(nodes, "graph", told(inputs), told(outputs), list(tensors)), path, **more)


def test_what_is_odd_about_a_file_that_is_taken_as_it_is_is_told(tmp_path):
    """ONNX Runtime runs it all the same."""
    relu = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    path = small(tmp_path / "m.onnx", relu, {"x": ["b", 3], "u": ["b", 3]}, {"y": ["b", 3]})
    model = onnx.load(str(path))
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["b", 4]))
    onnx.save(model, str(path))
    before = path.read_bytes()
    made = convert(onnx_format.describe(path), tmp_path / "model.onnx", opset=18, ir_version=9)
    unused, checker = made.provenance["notes"]
    assert unused == "input 'u' is read by no node; it stays in the signature"
    assert checker.startswith("onnx.checker ")
    assert "Inferred shape and existing shape differ in dimension 1" in checker
    assert checker.endswith("; ONNX Runtime's answers decide")
    assert (made.path, path.read_bytes()) == (path, before)


def test_what_the_user_says_of_the_inputs_stands_in_the_lowered_file(tmp_path):
    path = graphs.linear(tmp_path / "m.onnx", opset=20, ir_version=10)
    source = onnx_format.describe(path, [TensorSpec("x", "FP32", (4, 3))])
    made = convert(source, tmp_path / "model.onnx", opset=17, ir_version=8)
    assert made.inputs == (TensorSpec("x", "FP32", (4, 3)),)
    assert made.outputs == (TensorSpec("y", "FP32", (4, 2)),)


def test_weights_that_are_inputs_and_inputs_that_are_outputs_are_lowered(tmp_path):
    w = numpy_helper.from_array(np.float32([1, 2, 3]), "w")
    mul = [helper.make_node("Mul", ["x", "w"], ["y"])]
    inputs, outputs = {"x": ["b", 3], "w": [3]}, {"y": ["b", 3], "x": ["b", 3], "w": [3]}
    path = small(tmp_path / "m.onnx", mul, inputs, outputs, [w], opset=9, ir_version=3)
    made = convert(onnx_format.describe(path), tmp_path / "model.onnx", opset=8, ir_version=9)
    assert [spec.name for spec in made.inputs] == ["x"]
    assert [spec.name for spec in made.outputs] == ["y", "x", "w"]
    answers = onnx_format.run(made, {"x": np.ones((2, 3), np.float32)})
    assert [answers[name].tolist() for name in ("y", "x", "w")] == [[[1, 2, 3]] * 2, [[1, 1, 1]] * 2, [1, 2, 3]]


def test_a_wrong_stamp_of_a_users_file_is_told_before_it_is_lowered(tmp_path):
    mean = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)]
    path = small(tmp_path / "m.onnx", mean, {"x": ["b", 3]}, {"y": ["b", 1]}, opset=21, ir_version=10)
    with pytest.raises(SourceCorruptError, match=r"m.onnx: the file is stamped opset 21, but .* fit opsets 1 to 17"):
        convert(onnx_format.describe(path), tmp_path / "model.onnx", opset=18, ir_version=9)


@pytest.mark.parametrize("names", [("model.onnx", "b"), ("m.onnx", "b"), ("a\nb", "b"), ("W.bin", "w.bin")])
def test_weights_in_files_that_no_repository_can_hold_are_packed(tmp_path, names):
    nodes = [helper.make_node("Mul", ["x", "v"], ["h"]), helper.make_node("Add", ["h", "w"], ["y"])]
    tensors = [numpy_helper.from_array(np.float32([1, 2, 3]), "v"), numpy_helper.from_array(np.float32([4, 5, 6]), "w")]
    path = small(tmp_path / "m.onnx", nodes, {"x": ["b", 3]}, {"y": ["b", 3]}, tensors)
    model = onnx.load(str(path))
    for name, tensor in zip(names, model.graph.initializer, strict=True):
        offset = 0 if name != "m.onnx" else 1 << 12
        content, tensor.raw_data = tensor.raw_data, b""
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", str(offset)), ("length", "12")):
            tensor.external_data.add(key=key, value=value)
        if name != "m.onnx":
            (tmp_path / name).write_bytes(content)
    if "m.onnx" in names:
        model.metadata_props.add(key="room", value="x" * 4096)
    path.write_bytes(model.SerializeToString())
    source = onnx_format.describe(path)
    out = tmp_path / "out"
    out.mkdir()
    made = convert(source, out / "model.onnx", opset=18, ir_version=9)
    assert made.files == ("model.onnx",)
    assert made.provenance["notes"] == ["its weights are packed: their files bear names that a repository cannot hold"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(onnx_format.run(made, {"x": x})["y"], onnx_format.run(source, {"x": x})["y"])


def test_a_source_that_is_newer_than_the_onnx_runtime_here(tmp_path):
    path = small(
        tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ["b"]}, {"y": ["b"]}, ir_version=99
    )
    with pytest.raises(TargetError) as caught:
        convert(onnx_format.describe(path), tmp_path / "model.onnx", opset=18, ir_version=9)
    assert "m.onnx has opset 18 and IR version 99, and cannot be lowered: ONNX Runtime" in str(caught.value)
    assert "export the model at that opset" in str(caught.value)
