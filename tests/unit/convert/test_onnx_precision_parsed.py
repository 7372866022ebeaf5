"""What is written parses as a strongly typed network, with the types that were asked for."""

from __future__ import annotations

import precision_samples as graphs
import pytest

from repo_builder.convert.onnx_precision import convert
from repo_builder.formats import onnx as onnx_format
from repo_builder.tensorrt import calls, installation

HALF = {"fp16": "FP16", "bf16": "BF16", "int8": "FP16", "fp8": "FP16"}
PAIRS = [
    *(
        (make, half)
        for make in (graphs.attention, graphs.branches, graphs.types_that_stay)
        for half in ("fp16", "bf16")
    ),
    (graphs.convolutions, "bf16"),
    *((make, low) for make in (graphs.attention, graphs.convolutions) for low in ("int8", "fp8")),
]


@pytest.mark.parametrize(("make", "precision"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_tensorrt_parses_it(tmp_path, make, precision):
    source = make(tmp_path / "m.onnx")
    made, _ = convert(
        onnx_format.describe(source), tmp_path / "o.onnx", precision, cases=graphs.cases(source), max_opset=22
    )
    answer = calls.call(installation.parser(), "parse.py", {"onnx": str(made.path), "plugins": []})
    assert answer["errors"] == []
    assert answer["supported"]
    counts = answer["network"]["layers"]["by_precision"]
    assert counts[HALF[precision]] > counts.get("FP32", 0)
