"""Renaming, stripping and lowering leave the numbers alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_samples as graphs
import pytest
from onnx import TensorProto, helper

from repo_builder.artifact import files_digest
from repo_builder.convert import onnx_graph
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx as onnx_format

X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], dtype=np.float32)


def answers(path, **inputs):
    onnx_format.check(path)
    return onnx_format.run(onnx_format.describe(path), inputs)


def renamed(path, inputs, outputs):
    model = onnx.load(str(path))
    onnx_graph.rename(model.graph, inputs, outputs)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("name", ["h", "w", "y", "text"])
def test_an_output_may_be_called_like_an_inner_value_or_a_weight(tmp_path, name):
    wanted = answers(graphs.linear(tmp_path / "a.onnx"), x=X)["y"]
    path = renamed(graphs.linear(tmp_path / "b.onnx"), {"x": "input"}, [name])
    assert np.array_equal(answers(path, input=X)[name], wanted)


def test_inputs_inside_branches_are_renamed_too(tmp_path):
    wanted = [answers(graphs.branch(tmp_path / "a.onnx"), x=x)["y"] for x in (X, -X)]
    path = renamed(graphs.branch(tmp_path / "b.onnx"), {"x": "inner_Add"}, ["c_Mul"])
    for x, y in zip((X, -X), wanted, strict=True):
        assert np.array_equal(answers(path, inner_Add=x)["c_Mul"], y)


def test_inputs_weights_and_repeated_values_as_outputs(tmp_path):
    path = graphs.linear(tmp_path / "a.onnx")
    model = onnx.load(str(path))
    for name, shape in (("y", ["batch", 2]), ("x", ["batch", 3]), ("w", [3, 2])):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.save(model, str(path))
    found = answers(renamed(path, {"x": "x"}, ["first", "second", "third", "fourth"]), x=X)
    assert np.array_equal(found["first"], found["second"])
    assert np.array_equal(found["third"], X)
    assert np.array_equal(found["fourth"], np.full((3, 2), 2.0))


def test_two_outputs_swap_their_names(tmp_path):
    path = graphs.linear(tmp_path / "a.onnx")
    model = onnx.load(str(path))
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 2]))
    onnx.save(model, str(path))
    wanted = answers(path, x=X)
    found = answers(renamed(path, {}, ["h", "y"]), x=X)
    assert np.array_equal(found["h"], wanted["y"])
    assert np.array_equal(found["y"], wanted["h"])


def test_another_number_of_outputs(tmp_path):
    with pytest.raises(ConversionError, match="the file has 1 outputs, the source model has 2"):
        renamed(graphs.linear(tmp_path / "a.onnx"), {}, ["a", "b"])


def test_strip_removes_every_trace_of_where_it_was_made(tmp_path):
    model = onnx.load(str(graphs.branch(tmp_path / "a.onnx")))
    helper.set_model_props(model, {"source": "SECRET"})
    model.producer_name = model.doc_string = model.graph.doc_string = model.graph.name = "SECRET"
    for graph in onnx_graph.subgraphs(model.graph):
        graph.metadata_props.add(key="SECRET", value="SECRET")
        for node in graph.node:
            node.doc_string = "SECRET"
            node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="SECRET")
            for attribute in node.attribute:
                attribute.doc_string = "SECRET"
        for tensor in graph.initializer:
            tensor.doc_string = "SECRET"
        for value in (*graph.input, *graph.output):
            value.doc_string = "SECRET"
            value.metadata_props.add(key="SECRET", value="SECRET")
    model.graph.value_info.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["SECRET"]))
    model.opset_import.add(domain="SECRET", version=1)
    assert b"SECRET" in model.SerializeToString()
    onnx_graph.strip(model)
    assert b"SECRET" not in model.SerializeToString()
    onnx.save(model, str(tmp_path / "b.onnx"))
    assert np.array_equal(answers(tmp_path / "b.onnx", x=-X)["y"], answers(tmp_path / "a.onnx", x=-X)["y"])


def test_weights_beyond_the_limit_go_to_one_file_beside(tmp_path, monkeypatch):
    model = onnx.load(str(graphs.linear(tmp_path / "a.onnx")))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((3, 500), dtype=np.float32), "w"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 500
    whole, split = tmp_path / "whole", tmp_path / "split"
    whole.mkdir()
    split.mkdir()
    assert onnx_graph.save(model, whole / "model.onnx") == ("model.onnx",)
    monkeypatch.setattr(onnx_graph, "EXTERNAL_FROM", 4000)
    assert onnx_graph.save(model, split / "model.onnx") == ("model.onnx", "model.onnx.data")
    assert (split / "model.onnx").stat().st_size < 1000
    assert onnx_format.describe(split / "model.onnx").files == ("model.onnx", "model.onnx.data")
    assert np.array_equal(*(answers(folder / "model.onnx", x=X)["y"] for folder in (whole, split)))
    before = files_digest(split, ("model.onnx", "model.onnx.data"))
    onnx_graph.save(onnx.load(str(split / "model.onnx")), split / "model.onnx")
    assert files_digest(split, ("model.onnx", "model.onnx.data")) == before


def test_an_opset_that_does_not_exist(tmp_path):
    model = onnx.load(str(graphs.linear(tmp_path / "a.onnx")))
    with pytest.raises(ConversionError, match=r"onnx cannot convert opset 18 to 90: .*invalid version"):
        onnx_graph.at_opset(model, 90)


def test_defaults_that_an_older_operator_does_not_know_are_left_out():
    """Lowered by onnx alone, the checker refuses it: Unrecognized attribute: noop_with_empty_axes."""
    node = helper.make_node("ReduceL2", ["x", "axes"], ["y"], keepdims=1, noop_with_empty_axes=0)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    lowered = onnx_graph.at_opset(model, 17)
    onnx.checker.check_model(lowered, full_check=True)
    assert {a.name for a in lowered.graph.node[0].attribute} == {"axes", "keepdims"}


def test_model_local_functions_need_ir_version_8(tmp_path):
    model = onnx.load(str(graphs.linear(tmp_path / "a.onnx")))
    onnx_graph.lower_ir(model, 7)
    assert model.ir_version == 7
    onnx_graph.lower_ir(model, 12)
    assert model.ir_version == 7
    model.functions.add(name="f", domain="local")
    with pytest.raises(ConversionError, match="model-local functions, which IR version 7 does not know"):
        onnx_graph.lower_ir(model, 7)


def test_large_weights_stay_out_of_the_version_converter(tmp_path, monkeypatch):
    """Whose protobuf ends at 2 GiB; the graph that was converted keeps its own."""
    table = np.arange(1 << 18, dtype=np.float32).reshape(-1, 2)
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    seen = []
    convert = onnx.version_converter.convert_version
    monkeypatch.setattr(
        onnx.version_converter, "convert_version", lambda m, v: seen.append(m.ByteSize()) or convert(m, v)
    )
    converted = onnx_graph.at_opset(model, 13)
    assert seen[0] < 1000
    onnx.save(converted, str(tmp_path / "m.onnx"))
    ids = np.array([0, 70_000])
    assert np.array_equal(answers(tmp_path / "m.onnx", ids=ids)["y"], table[ids])
    assert onnx_graph.opset_of(converted) == 13
    assert model.graph.initializer[0].raw_data == table.tobytes()
