"""Ranked outputs: only rounding may let neighbours change places."""

from __future__ import annotations

import numpy as np
import pytest

from repo_builder.compare import settled

VALUES = np.array([[0.5, 0.3, 0.29999, 0.1]])
SOURCE = np.array([[b"a", b"b", b"c", b"d"]], dtype=object)


def served(text: str) -> np.ndarray:
    return np.array([[letter.encode() for letter in text]], dtype=object)


@pytest.mark.parametrize(
    ("error", "text", "equal"),
    [
        (1e-5, "abcd", True),
        (1e-5, "acbd", True),
        (1e-8, "acbd", False),
        (1e-5, "bacd", False),
        (1e-5, "xbcd", False),
        (1e-5, "abcx", True),
        (1e-5, "accd", False),
        (1e-5, "axcd", False),
    ],
)
def test_entries_whose_values_the_error_can_swap_are_settled(error: float, text: str, equal: bool) -> None:
    found = settled(served(text), SOURCE, VALUES + error, VALUES)
    assert (found.tolist() == SOURCE.tolist()) is equal


def test_one_entry_alone_is_never_free_and_other_shapes_stay() -> None:
    one = np.array([[1]])
    assert settled(one, one + 1, np.array([[0.5]]), np.array([[0.5]])).tolist() == [[1]]
    assert settled(one, SOURCE, VALUES, VALUES) is one


def test_nothing_comes_in_from_outside_where_the_whole_is_kept() -> None:
    found = settled(served("abcx"), SOURCE, VALUES, VALUES, whole=True)
    assert found.tolist() == served("abcx").tolist()


def test_padding_at_the_end_of_the_axes_before_stays() -> None:
    longer = np.concatenate([served("acbd"), served("zzzz")])[None]
    values = np.concatenate([VALUES + 1e-5, np.zeros((1, 4))])[None]
    found = settled(longer, SOURCE[None], values, VALUES[None])
    assert found.tolist() == [[*SOURCE.tolist(), *served("zzzz").tolist()]]


def test_an_entry_comes_once_but_two_may_have_one_name() -> None:
    twice = np.array([[0, 1, 2, 0]]), np.array([[0, 1, 2, 3]])
    assert settled(*twice, VALUES, VALUES).tolist() == [[0, 1, 2, 0]]
    assert settled(served("abca"), SOURCE, VALUES, VALUES).tolist() == SOURCE.tolist()


def test_wrong_values_free_no_entries() -> None:
    values, wrong = np.array([[0.9, 0.5]]), np.array([[0.6, 0.5]])
    assert settled(served("ba"), served("ab"), wrong, values, whole=True).tolist() == served("ba").tolist()


def test_no_entry_comes_twice_where_the_source_has_it_once() -> None:
    flat = np.full((1, 3), 0.5)
    assert settled(np.array([[1, 2, 2]]), np.array([[1, 2, 3]]), flat, flat).tolist() == [[1, 2, 2]]
    assert settled(np.array([[1, 2, 4]]), np.array([[1, 2, 3]]), flat, flat).tolist() == [[1, 2, 3]]
