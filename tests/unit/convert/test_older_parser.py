"""Graphs for the parser of TensorRT 8.6: no attribute that it would read past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder.convert import older_parser
from repo_builder.formats import onnx as onnx_format


def graph(folder: Path, **attributes: int) -> Any:
    made = helper.make_graph(
        [helper.make_node("Shape", ["x"], ["y"], **attributes)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    return onnx_format.describe(folder / "m.onnx")


@pytest.mark.parametrize("attributes", [{"start": 1}, {"start": 1, "end": 2}, {"end": -1}, {"start": -2}])
def test_part_of_a_shape_becomes_a_slice_of_it(tmp_path: Path, attributes: dict[str, int]) -> None:
    source = graph(tmp_path, **attributes)
    found = older_parser.rewritten(source, tmp_path / "out.onnx")
    onnx_format.check(found.path)
    nodes = onnx.load(str(found.path)).graph.node
    assert [node.op_type for node in nodes] == ["Shape", "Slice"]
    assert not any(node.attribute for node in nodes)
    x = {"x": np.zeros((4, 5, 3), np.float32)}
    np.testing.assert_array_equal(onnx_format.run(found, x)["y"], onnx_format.run(source, x)["y"])


def test_a_graph_without_such_nodes_stays_the_file_that_it_is(tmp_path: Path) -> None:
    source = graph(tmp_path)
    assert older_parser.rewritten(source, tmp_path / "out.onnx") is source
