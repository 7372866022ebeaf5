"""String tables: an integer output of the source is served as text, looked up inside the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
