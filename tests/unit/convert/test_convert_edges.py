"""The registry of edges."""

from __future__ import annotations

import subprocess
import sys

import pytest

from repo_builder import convert
from repo_builder.errors import ConversionError


@pytest.mark.parametrize("pair", sorted(convert.EDGES))
def test_every_edge_has_a_converter(pair):
    assert callable(convert.edge(*pair).convert)


def test_a_missing_edge_names_the_ones_there_are():
    with pytest.raises(ConversionError) as caught:
        convert.edge("onnx", "torchscript")
    assert str(caught.value).splitlines() == [
        "nothing converts onnx to torchscript",
        "  expected: onnx to onnx or tensorrt",
        "  to mend it: choose another engine",
    ]


def test_no_converter_imports_a_framework():
    code = (
        "import sys; from repo_builder import convert; [convert.edge(*p) for p in convert.EDGES]; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
