"""Example integers: all values of quantised inputs, all indices of a table that the graph has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from repo_builder.formats import index_ranges
from repo_builder.formats.examples import example_inputs
from repo_builder.tensors import TensorSpec


def saved(path: Path, *nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("ids",)) -> Path:
    tables = [
        numpy_helper.from_array(np.zeros((10, 4), np.float32), "words"),
        numpy_helper.from_array(np.zeros((4, 7), np.float32), "wide"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in inputs]
    graph = helper.make_graph(list(nodes), "g", values, [], tables)
    onnx.save(helper.make_model(graph), path)
    return path


def test_an_index_takes_what_the_smallest_of_its_tables_has(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["ids"], ["cast"], to=TensorProto.INT32)
    rows = helper.make_node("Gather", ["words", "cast"], ["rows"])
    columns = helper.make_node("Gather", ["wide", "ids"], ["columns"], axis=1)
    constant = helper.make_node(
        "Constant", [], ["own"], value=numpy_helper.from_array(np.zeros((3, 2), np.float32), "own")
    )
    assert index_ranges.of(saved(tmp_path / "a.onnx", cast, rows)) == [(0, 9)]
    assert index_ranges.of(saved(tmp_path / "a.onnx", cast, rows, columns)) == [(0, 6)]
    own = helper.make_node("Gather", ["own", "ids"], ["rows"])
    assert index_ranges.of(saved(tmp_path / "a.onnx", constant, own, inputs=("x", "ids"))) == [None, (0, 2)]


def test_a_negative_index_may_count_from_the_end_as_keras_lets_it(tmp_path: Path) -> None:
    zero = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.int64(0), "zero"))
    ten = helper.make_node("Constant", [], ["ten"], value=numpy_helper.from_array(np.int64(10), "ten"))
    less = helper.make_node("Less", ["ids", "zero"], ["negative"])
    added = helper.make_node("Add", ["ids", "ten"], ["added"])
    chosen = helper.make_node("Where", ["negative", "added", "ids"], ["index"])
    rows = helper.make_node("Gather", ["words", "index"], ["rows"])
    assert index_ranges.of(saved(tmp_path / "a.onnx", zero, ten, less, added, chosen, rows)) == [(0, 9)]


def test_an_index_of_two_inputs_is_not_known(tmp_path: Path) -> None:
    both = helper.make_node("Add", ["ids", "x"], ["both"])
    rows = helper.make_node("Gather", ["words", "both"], ["rows"])
    assert index_ranges.of(saved(tmp_path / "a.onnx", both, rows, inputs=("ids", "x"))) == [None, None]


@pytest.mark.parametrize(("dtype", "low", "high"), [("UINT8", 0, 255), ("INT8", -128, 127), ("INT32", 0, 1)])
def test_quantised_inputs_take_all_their_values(dtype: str, low: int, high: int) -> None:
    made = example_inputs([TensorSpec("x", dtype, ("batch", 40))])["x"]
    assert (made.min(), made.max()) == (low, high)


def test_known_ranges_reach_both_ends() -> None:
    made = example_inputs([TensorSpec("ids", "INT64", (2, 2))], ranges={"ids": (0, 999)})["ids"]
    assert {0, 999} <= set(made.reshape(-1).tolist())
    assert example_inputs([TensorSpec("ids", "INT64", (0,))], ranges={"ids": (0, 999)})["ids"].size == 0
