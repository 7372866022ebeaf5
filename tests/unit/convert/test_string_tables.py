"""String tables: an integer output of the source is served as text, looked up inside the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx as onnx_package
import pytest
from onnx import TensorProto, helper

from repo_builder.convert import string_tables
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

pytestmark = pytest.mark.torch
LABELS = ("bad", "größer", "")


def program(tables: dict[str, tuple[str, ...]]) -> TorchProgram:
    import torch

    class Best(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            best, order = torch.topk(x, 3, dim=-1)
            return order, best

    inputs = (TensorSpec("x", "FP32", ("batch", 3)),)
    return TorchProgram(Best().eval(), "eager", inputs, ("labels", "scores"), (torch.rand(2, 3),), tables)


@pytest.mark.parametrize("exporter", ["dynamo", "trace"])
def test_the_file_gives_the_strings_in_the_order_of_the_scores(tmp_path: Path, exporter: str) -> None:
    from repo_builder.convert import torch_to_onnx

    made = torch_to_onnx.convert(
        program({"labels": LABELS}), tmp_path / "m.onnx", opset=18, ir_version=10, exporter=exporter
    )
    assert [str(t) for t in made.outputs] == ["labels BYTES[batch, 3]", "scores FP32[batch, 3]"]
    answer = onnx.run(made, {"x": np.array([[0.1, 0.9, 0.5]], np.float32)})
    assert answer["labels"].tolist() == [["größer".encode(), b"", b"bad"]]


def test_the_source_itself_answers_with_strings() -> None:
    labels, _ = program({"labels": LABELS}).run({"x": np.array([[3, 1, 2]], np.float32)})
    assert labels.tolist() == [[b"bad", b"", "größer".encode()]]


def test_a_table_that_is_too_short_is_no_silent_wrap(tmp_path: Path) -> None:
    from repo_builder.convert import torch_to_onnx

    with pytest.raises(ConversionError, match="IndexError"):
        torch_to_onnx.convert(program({"labels": ("only",)}), tmp_path / "m.onnx", opset=18, ir_version=10)


@pytest.mark.parametrize("exporter", ["dynamo", "trace"])
def test_what_was_put_in_is_taken_out_again(tmp_path: Path, exporter: str) -> None:
    from repo_builder.convert import torch_to_onnx

    made = torch_to_onnx.convert(
        program({"labels": LABELS}), tmp_path / "m.onnx", opset=18, ir_version=10, exporter=exporter
    )
    split, tables = string_tables.split(made, tmp_path / "indices.onnx")
    assert tables == {"labels": LABELS}
    assert [str(t) for t in split.outputs] == ["labels INT64[batch, 3]", "scores FP32[batch, 3]"]
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    before, after = onnx.run(made, {"x": x}), onnx.run(split, {"x": x})
    names = np.array([label.encode() for label in LABELS], dtype=object)
    np.testing.assert_array_equal(names[after["labels"]], before["labels"])
    np.testing.assert_array_equal(after["scores"], before["scores"])
    written = onnx_package.load(str(split.path)).graph
    assert not [t.name for t in written.initializer if t.data_type == TensorProto.STRING]
    onnx.check(split.path)


def graph(folder: Path, nodes: list[onnx_package.NodeProto], output: tuple[str, int], *, text: bool = False) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.STRING if text else TensorProto.FLOAT, ["batch", 3])
    made = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info(*output, ["batch"])])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx_package.save(model, folder / "g.onnx")
    return folder / "g.onnx"


def test_a_table_in_a_constant_node_goes_too(tmp_path: Path) -> None:
    strings = helper.make_tensor("t", TensorProto.STRING, [3], [b"a", b"b", b"c"])
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Constant", [], ["table"], value=strings),
        helper.make_node("Gather", ["table", "best"], ["NAME"]),
    ]
    source = onnx.describe(graph(tmp_path, nodes, ("NAME", TensorProto.STRING)))
    split, tables = string_tables.split(source, tmp_path / "i.onnx")
    assert (tables, [str(t) for t in split.outputs]) == ({"NAME": ("a", "b", "c")}, ["NAME INT64[batch]"])
    assert [n.op_type for n in onnx_package.load(str(split.path)).graph.node] == ["ArgMax"]


def test_a_graph_without_text_stays_the_file_that_it_is(tmp_path: Path) -> None:
    nodes = [helper.make_node("ArgMax", ["x"], ["best"], axis=-1, keepdims=0)]
    source = onnx.describe(graph(tmp_path, nodes, ("best", TensorProto.INT64)))
    assert string_tables.split(source, tmp_path / "i.onnx") == (source, {})


def test_text_that_is_computed_cannot_stand_behind_a_plan(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Cast", ["best"], ["NAME"], to=TensorProto.STRING, name="shown"),
    ]
    source = onnx.describe(graph(tmp_path, nodes, ("NAME", TensorProto.STRING)))
    with pytest.raises(ConversionError, match=r"the output NAME is text, .* it is made by Cast 'shown'") as caught:
        string_tables.split(source, tmp_path / "i.onnx")
    assert "a Gather from a constant list of strings" in str(caught.value)


def test_a_model_that_takes_text_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    source = onnx.describe(graph(tmp_path, nodes, ("y", TensorProto.STRING), text=True))
    with pytest.raises(ConversionError, match=r"the input x BYTES\[batch, 3\] is text, which a TensorRT plan does not"):
        string_tables.refuse_text(source)
