"""An ONNX source: taken as it is, lowered with the same answers, or refused before anything is built."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_samples as graphs
import pytest
from onnx import TensorProto, helper, numpy_helper

from repo_builder.convert.onnx_to_onnx import convert
from repo_builder.errors import TargetError
from repo_builder.formats import onnx as onnx_format


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
