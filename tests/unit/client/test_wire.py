"""The protocol's bytes, against tritonclient's own serializer and ml_dtypes' bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repo_builder.client import text, wire
from repo_builder.errors import InferenceError

NUMERIC = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@given(datatype=st.sampled_from(NUMERIC), data=st.data())
def test_numbers_come_back_bit_for_bit(datatype: str, data: st.DataObject) -> None:
    name = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(datatype, datatype.lower())
    array = data.draw(hnp.arrays(name, SHAPES))
    raw = wire.encode("x", datatype, array)
    assert len(raw) == wire.size(datatype, array.shape)
    back = wire.decode("x", datatype, array.shape, raw)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_rows_of_a_transposed_array_travel_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert wire.encode("x", "INT32", array) == array.copy().tobytes()


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=9, alphabet=st.characters(exclude_categories=["Cs"]))))
)
def test_bytes_are_what_tritonclient_writes(values: list[bytes | str]) -> None:
    from tritonclient.utils import serialize_byte_tensor

    array = np.empty(len(values), dtype=object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    mixed = np.empty(len(values), dtype=object)
    mixed[:] = values
    raw = wire.encode("x", "BYTES", mixed)
    assert raw == (serialize_byte_tensor(array).item() if values else b"")
    assert wire.decode("x", "BYTES", array.shape, raw).tolist() == array.tolist()


@given(hnp.arrays(np.float32, SHAPES))
def test_bfloat16_rounds_as_ml_dtypes_does(array: np.ndarray) -> None:
    from ml_dtypes import bfloat16

    with np.errstate(over="ignore", invalid="ignore"):
        expected = array.astype(bfloat16).astype(np.float32)
    back = wire.decode("x", "BF16", array.shape, wire.encode("x", "BF16", array))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, expected)


def test_a_tensor_that_does_not_fill_its_shape_is_refused() -> None:
    with pytest.raises(InferenceError, match=r"tensor 'y' came with 4 bytes\n  expected: 8 bytes for FP32\[2\]"):
        wire.decode("y", "FP32", (2,), b"1234")


@pytest.mark.parametrize("raw", [b"", b"\x01\x00", b"\x02\x00\x00\x00a", b"\x01\x00\x00\x00a\xff\xff\xff\xff"])
def test_truncated_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InferenceError, match=r"BYTES tensor 'y' ends within element"):
        wire.decode("y", "BYTES", (2,), raw)


@pytest.mark.parametrize("value", [None, 3, float("nan"), ["nested"]])
def test_only_text_and_bytes_are_bytes(value: object) -> None:
    array = np.empty(1, dtype=object)
    array[0] = value
    with pytest.raises(InferenceError, match=r"input 'x' holds .* of type .*\n  expected: str or bytes"):
        wire.encode("x", "BYTES", array)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(InferenceError, match="input 'x' holds text that UTF-8 cannot write"):
        wire.encode("x", "BYTES", np.array(["\ud800"], dtype=object))


def test_text_gives_str_and_refuses_other_bytes() -> None:
    assert text(np.array([["é".encode()], [b"b"]], dtype=object)) == ["é", "b"]
    with pytest.raises(InferenceError, match=r"element 1 is not UTF-8 text: b'\\xff'"):
        text(np.array([b"a", b"\xff"], dtype=object))
    with pytest.raises(InferenceError, match="element 0 is not UTF-8 text"):
        text(np.array([1.5]))
