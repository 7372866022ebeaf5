"""A sample of ONNX's own tests (`make onnx-suite` runs them all), built and served by the same code."""

from __future__ import annotations

import pytest

from scripts import onnx_cases, onnx_suite
from scripts.onnx_suite import RIGHT

pytestmark = pytest.mark.server

MODULES = ("cast", "isnan", "loop", "optionalhaselement", "reducesum", "size", "split", "string_concat")
SERVED = (
    "test_isnan",
    "test_isnan_float16",
    "test_loop11",
    "test_reduce_sum_default_axes_keepdims_example",
    "test_size",
    "test_string_concat_utf8",
)
"""Booleans, half precision, control flow over scalars, an input that is always empty, a scalar answer, strings."""
REFUSED = {
    "test_cast_FLOAT_to_BFLOAT16": "BF16, which numpy lacks",
    "test_cast_FLOAT_to_FLOAT8E4M3FN": "a dtype that Triton lacks",
    "test_cast_FLOAT_to_UINT4": "a dtype that Triton lacks",
    "test_loop13_seq": "a sequence or optional type",
    "test_optional_has_element_empty_no_input_tensor_input": "no inputs",
    "test_split_zero_size_splits_opset18": "an output that is always empty",
}


def test_a_sample_is_right_when_served_or_refused_for_its_reason() -> None:
    found = {case.name: case for case in onnx_cases.cases(MODULES)}
    versions: dict[str, str] = {}
    verdicts = onnx_suite.run([found[name] for name in (*SERVED, *REFUSED)], versions)
    assert {v.name: v.served for v in verdicts} == {**dict.fromkeys(SERVED, RIGHT), **REFUSED}
    assert {v.process for v in verdicts if v.name in SERVED} == {RIGHT}
    assert not any(v.lost for v in verdicts)
    assert versions["tritonserver"] == "2.51.0"
    table = onnx_suite.render(verdicts, versions)
    assert "| right | 6 |" in table
    assert "Of these 6 are right when served (tritonserver 2.51.0, " in table
