"""The one line that the report keeps of an exporter's failure."""

from __future__ import annotations

import pytest

from repo_builder.convert.torch_to_onnx import reason
from repo_builder.errors import SourceCorruptError


def wrapped(inner):
    try:
        raise RuntimeError("Failed to export the model. This is step 1/3") from inner
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n\n  first line  \nsecond"), "ValueError: first line"),
        (KeyError(), "KeyError"),
        (wrapped(TypeError("\x1b[96mno such thing\x1b[0m")), "TypeError: no such thing"),
        (
            wrapped(SourceCorruptError("onnx.checker refuses m.onnx", mend="export again")),
            "onnx.checker refuses m.onnx",
        ),
        (ValueError("<object at 0x7f00fae7fac0> is wrong"), "ValueError: <object> is wrong"),
        (ValueError("x" * 500), "ValueError: " + "x" * 237 + "..."),
    ],
)
def test_reason(error, line):
    assert reason(error) == line
