"""Ranked outputs: only rounding may let neighbours change places."""

from __future__ import annotations

import numpy as np
import pytest

from repo_builder.compare import decided, settled

VALUES = np.array([[0.5, 0.3, 0.299999, 0.1]])
SOURCE = np.array([[b"a", b"b", b"c", b"d"]], dtype=object)


def served(text: str) -> np.ndarray:
    return np.array([[letter.encode() for letter in text]], dtype=object)


@pytest.mark.parametrize(
    ("error", "text", "equal"),
    [
        (1e-6, "abcd", True),
        (1e-6, "acbd", True),
        (1e-8, "acbd", False),
        (1e-6, "bacd", False),
        (1e-6, "xbcd", False),
        (1e-6, "abcx", True),
    ],
)
def test_entries_whose_values_the_error_can_swap_are_settled(error: float, text: str, equal: bool) -> None:
    found = settled(served(text), SOURCE, VALUES + error, VALUES)
    assert (found.tolist() == SOURCE.tolist()) is equal


def test_one_entry_alone_is_never_free_and_other_shapes_stay() -> None:
    one = np.array([[1]])
    assert settled(one, one + 1, np.array([[0.5]]), np.array([[0.5]])).tolist() == [[1]]
    assert settled(one, SOURCE, VALUES, VALUES) is one


def test_an_order_is_decided_where_neighbours_differ_by_more_than_rounding() -> None:
    assert decided(np.array([[0.5, 0.3], [1e-9, 0.9e-9]]))
    assert not decided(np.array([[0.5, 0.3], [0.4, 0.4]]))
    assert not decided(np.array([[0.5, 0.499999]]))
    assert decided(np.array([[0.5]]))
