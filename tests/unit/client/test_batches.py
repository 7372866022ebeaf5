"""Rows to batches and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from repo_builder.client import batches
from repo_builder.errors import InferenceError


def test_chunks_take_no_more_rows_than_they_hand_on() -> None:
    rows = ({"x": i} for i in itertools.count())
    assert [row["x"] for row in next(batches.chunks(rows, 3))] == [0, 1, 2]
    assert next(rows) == {"x": 3}
    assert [len(chunk) for chunk in batches.chunks([{}] * 7, 3)] == [3, 3, 1]
    assert list(batches.chunks([], 3)) == []


def test_arrays_are_stacked_and_texts_listed() -> None:
    joined = batches.join([{"a": np.zeros(2), "t": "x"}, {"a": np.ones(2), "t": "y"}], "m")
    np.testing.assert_array_equal(joined["a"], [[0, 0], [1, 1]])
    assert joined["t"] == ["x", "y"]


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(InferenceError) as caught:
        batches.join([{"a": np.zeros(2)}, {"a": np.zeros(3)}], "m")
    assert str(caught.value) == (
        "m: rows of input 'a' have shapes [2], [3]\n  expected: one shape within a batch\n"
        "  to mend it: pad the rows to one length, or use batch_size=1"
    )


def test_rows_with_other_inputs_are_refused() -> None:
    with pytest.raises(InferenceError, match=r"a row has inputs \['b'\]\n  expected: the inputs of the first row"):
        batches.join([{"a": 1}, {"b": 1}], "m")


def test_outputs_are_split_by_row_or_refused() -> None:
    rows = list(batches.split({"y": np.array([[1], [2]])}, 2, "m"))
    assert [row["y"].tolist() for row in rows] == [[1], [2]]
    with pytest.raises(InferenceError, match=r"output 'y' has shape \[1, 4\] for a batch of 2"):
        list(batches.split({"y": np.zeros((1, 4))}, 2, "m"))
