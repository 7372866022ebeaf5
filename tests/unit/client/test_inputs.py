"""What callers pass becomes what the model declares, or an error that says the mend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repo_builder.client.inputs import match_input, match_inputs
from repo_builder.errors import InferenceError
from repo_builder.tensors import TensorSpec


def spec(dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec("x", dtype, shape)


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        (("?", 1), ["a", "b"], [["a"], ["b"]]),
        (("?", "?"), ["a", "b"], [["a"], ["b"]]),
        (("?", 1), "a", [["a"]]),
        (("?", 1), b"a", [[b"a"]]),
        (("?", 1), [["a"], ["b"]], [["a"], ["b"]]),
        (("?", "?"), [["a", "b"]], [["a", "b"]]),
        (("?",), ["a", "b"], ["a", "b"]),
        ((1,), "a", ["a"]),
        ((1, "?"), ["a", "b"], [["a", "b"]]),
        ((1, 1), ["a"], [["a"]]),
        (("?", 1), np.array(["a", "b"]), [["a"], ["b"]]),
        (("?", 1), np.array([b"a"], dtype=object), [[b"a"]]),
        (("?", 1), [], []),
    ],
)
def test_text_takes_the_shape_that_the_model_declares(shape: tuple[int | str, ...], value: Any, expected: Any) -> None:
    array = match_input(spec("BYTES", *shape), value)
    assert array.dtype == object
    assert array.tolist() == expected
    assert array.ndim == len(shape)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("INT32", np.array([1, 2], dtype=np.int64), np.array([1, 2], dtype=np.int32)),
        ("INT64", [1, 2], np.array([1, 2], dtype=np.int64)),
        ("FP32", [0.1, float("inf")], np.array([0.1, np.inf], dtype=np.float32)),
        ("FP16", [1, 2], np.array([1, 2], dtype=np.float16)),
        ("FP32", np.array([0.5, np.nan]), np.array([0.5, np.nan], dtype=np.float32)),
        ("INT8", np.array([-1.0, 127.0]), np.array([-1, 127], dtype=np.int8)),
        ("UINT8", np.array([True]), np.array([1], dtype=np.uint8)),
        ("BOOL", [0, 1], np.array([False, True])),
        ("FP32", [], np.zeros(0, dtype=np.float32)),
        ("BF16", np.array([0.1], dtype=np.float32), np.array([0.1], dtype=np.float32)),
        ("FP32", np.array([1, 2], dtype=">f4"), np.array([1, 2], dtype=np.float32)),
    ],
)
def test_dtypes_are_converted_where_nothing_is_lost(dtype: str, value: Any, expected: np.ndarray) -> None:
    array = match_input(spec(dtype, "?"), value)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "found"),
    [
        ("FP32", np.array([0.1]), "float64 values that float32 cannot hold exactly"),
        ("INT32", np.array([2**31]), "int64 values that int32 cannot hold exactly"),
        ("UINT8", np.array([-1], dtype=np.int8), "int8 values that uint8 cannot hold exactly"),
        ("UINT64", np.array([-1]), "int64 values that uint64 cannot hold exactly"),
        ("INT64", np.array([2**63], dtype=np.uint64), "uint64 values that int64 cannot hold exactly"),
        ("FP32", np.array([2**24 + 1]), "int64 values that float32 cannot hold exactly"),
        ("INT32", [1.5], "float64 values that int32 cannot hold exactly"),
        ("INT64", np.array([np.nan]), "float64 values that int64 cannot hold exactly"),
        ("INT64", np.array([1e30]), "float64 values that int64 cannot hold exactly"),
        ("BOOL", [2], "int64 values that bool cannot hold exactly"),
        ("FP16", [1e9], "floats beyond the range of float16"),
        ("FP32", ["a"], "values of text"),
        ("FP32", [1j], "values of complex128"),
        ("FP32", [[1], [1, 2]], "a ragged list"),
    ],
)
def test_what_would_be_lost_is_refused(dtype: str, value: Any, found: str) -> None:
    with pytest.raises(InferenceError) as caught:
        match_input(spec(dtype, "?"), value)
    assert str(caught.value).startswith(f"input 'x' was given {found}")
    assert f"expected: x {dtype}[?]" in str(caught.value)
    assert "to mend it: " in str(caught.value)


@given(
    hnp.arrays(st.sampled_from(["int64", "uint64", "int8", "float64", "float32", "float16"]), st.integers(0, 3)),
    st.sampled_from(["BOOL", "UINT8", "UINT64", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64"]),
)
def test_no_accepted_value_ever_changes(array: np.ndarray, dtype: str) -> None:
    try:
        converted = match_input(spec(dtype, "?"), array)
    except InferenceError:
        return
    for before, after in zip(array.tolist(), converted.tolist(), strict=True):
        assert before == after or (before != before and after != after)


@pytest.mark.parametrize(
    ("shape", "value", "text"),
    [
        (("?", 3), np.zeros(3, np.float32), "shape [3]\n  expected: x FP32[?, 3]\n  to mend it: add the missing axes"),
        (("?", 3), np.zeros((1, 4), np.float32), "shape [1, 4]\n  expected: x FP32[?, 3]\n  to mend it: reshape"),
        (("?",), np.float32(1), "shape []\n  expected: x FP32[?]\n  to mend it: add the missing axes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int | str, ...], value: Any, text: str) -> None:
    with pytest.raises(InferenceError) as caught:
        match_input(spec("FP32", *shape), value)
    assert f"input 'x' was given {text}" in str(caught.value)


def test_texts_that_do_not_fit_a_fixed_shape_are_refused() -> None:
    with pytest.raises(InferenceError, match=r"input 'x' was given shape \[2, 1\]\n  expected: x BYTES\[1, 1\]"):
        match_input(spec("BYTES", 1, 1), ["a", "b"])


def test_an_unknown_input_suggests_the_nearest() -> None:
    with pytest.raises(InferenceError) as caught:
        match_inputs((TensorSpec("text", "BYTES", ("?",)),), {"txt": "a"}, "m")
    assert (
        str(caught.value) == "m: the model has no input 'txt' (did you mean 'text'?)\n  expected: inputs text BYTES[?]"
    )


def test_an_error_names_the_model() -> None:
    with pytest.raises(InferenceError, match=r"^m: input 'x' was given"):
        match_inputs((spec("FP32", "?"),), {"x": "a"}, "m")
