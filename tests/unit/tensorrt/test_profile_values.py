"""Values of shape tensors as each TensorRT's Python tells them, over named doubles of the engine."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from repo_builder.tensorrt import truth

Worker = Callable[[str], ModuleType]
SIZES = [[1, 2], [3, 4], [8, 9]]


class Engine10:
    def get_tensor_profile_values(self, index: int, name: str) -> list[list[int]]:
        assert (index, name) == (1, "SIZE")
        return SIZES


class Engine86:
    """8.6: as many values as the tensor has dimensions."""

    def __init__(self, shape: list[int], told: int = 3) -> None:
        self._shape, self._told = shape, told

    def get_tensor_shape(self, name: str) -> list[int]:
        assert name == "SIZE"
        return self._shape

    def get_profile_shape_input(self, index: int, name: str) -> list[list[int]]:
        assert (index, name) == (1, "SIZE")
        return [values[: len(self._shape)] for values in SIZES[: self._told]]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (Engine10(), SIZES),
        (Engine86([2]), [[1, None], [3, None], [8, None]]),
        (Engine86([1]), [[1], [3], [8]]),
        (Engine86([]), [[None], [None], [None]]),
        (Engine86([2], told=0), [[None, None], [None, None], [None, None]]),
    ],
)
def test_what_is_not_told_is_none(worker: Worker, engine: Any, expected: Any) -> None:
    assert worker("profile_values").profile_values(engine, "SIZE", 1) == expected


def test_a_profile_is_chosen_by_what_is_known(worker: Worker) -> None:
    execution = worker("execution")
    profiles = [
        {"SIZE": {"min": [1, None], "opt": [2, None], "max": [4, None]}},
        {"SIZE": {"min": [4, None], "opt": [6, None], "max": [8, None]}},
    ]
    assert execution.choose_profile(profiles, {"SIZE": [5, 900]}) == 1
    assert execution.choose_profile(profiles, {"SIZE": [4, 1]}) == 0
    with pytest.raises(
        execution.Refused, match=r"input 'SIZE' is \[9, 1\], the profile goes from \[4, \?\] to \[8, \?"
    ):
        execution.choose_profile(profiles, {"SIZE": [9, 1]})
    with pytest.raises(execution.Refused, match="input 'SIZE' has 1 dimensions, the profile 2"):
        execution.choose_profile(profiles, {"SIZE": [5]})


def test_the_truth_check_compares_what_is_known() -> None:
    wanted = {"min": [1, 2], "opt": [3, 4], "max": [8, 9]}
    told = {"min": [1, None], "opt": [3, None], "max": [8, None]}
    assert truth._holds(told, wanted)
    assert not truth._holds({**told, "max": [7, None]}, wanted)
    assert not truth._holds({**told, "max": [8]}, wanted)


def test_what_is_not_told_is_what_was_asked() -> None:
    asked = [{"values": {"SIZE": {"min": [1, 2], "opt": [3, 4], "max": [8, 9]}}, "X": {"min": [1]}}]
    found = [{"values": {"SIZE": {"min": [1, None], "opt": [3, None], "max": [8, None]}}, "X": {"min": [1]}}]
    assert truth.completed(asked, found) == asked
    assert truth.completed([], [{"X": {"min": [1]}}]) == [{"X": {"min": [1]}}]
