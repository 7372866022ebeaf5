"""Profiles against a graph's inputs: every message names the profile, the input and the axis."""

from __future__ import annotations

from typing import Any

import pytest

IDS = {"name": "ids", "shape": [-1, -1], "is_shape_tensor": False}
IMAGE = {"name": "image", "shape": [-1, 3, 224, 224], "is_shape_tensor": False}
FIXED = {"name": "fixed", "shape": [2, 3], "is_shape_tensor": False}
SIZES = {"name": "sizes", "shape": [2], "is_shape_tensor": True}
SCALAR = {"name": "k", "shape": [], "is_shape_tensor": True}


def ranges(low: list[int], opt: list[int], high: list[int]) -> dict[str, list[int]]:
    return {"min": low, "opt": opt, "max": high}


@pytest.mark.parametrize(
    ("inputs", "profiles"),
    [
        ([FIXED], []),
        ([IDS], [{"ids": ranges([1, 1], [8, 64], [32, 128])}]),
        ([IDS, FIXED], [{"ids": ranges([1, 1], [1, 1], [1, 1])}, {"ids": ranges([1, 64], [8, 64], [32, 64])}]),
        ([IMAGE], [{"image": ranges([1, 3, 224, 224], [8, 3, 224, 224], [32, 3, 224, 224])}]),
        ([FIXED], [{"fixed": ranges([2, 3], [2, 3], [2, 3])}]),
        ([FIXED, SIZES], [{"values": {"sizes": ranges([1, 2], [2, 3], [4, 6])}}]),
        ([SCALAR], [{"values": {"k": ranges([1], [2], [4])}}]),
    ],
)
def test_profiles_that_fit_are_taken(worker: Any, inputs: list[Any], profiles: list[Any]):
    worker("profiles").check(inputs, profiles)


@pytest.mark.parametrize(
    ("inputs", "profiles", "found"),
    [
        ([IDS], [], "the graph has dynamic inputs ('ids' [-1, -1]) and no profile was given"),
        ([IDS, FIXED], [{}], "profile 0, input 'ids' [-1, -1] has no range"),
        ([FIXED], [{"idz": ranges([1], [1], [1])}], "profile 0 names 'idz', which is no input of the graph"),
        ([FIXED], [{"values": {"n": ranges([1], [1], [1])}}], "profile 0 names 'n', which is no input of the graph"),
        ([IDS], [{"ids": ranges([1], [1], [1])}], "profile 0, input 'ids' [-1, -1]: min [1] has 1 axes"),
        (
            [IDS],
            [{"ids": ranges([1, 1], [8, 64], [32, 128])}, {"ids": ranges([1, 64], [8, 32], [32, 128])}],
            "profile 1, input 'ids' [-1, -1], axis 1: the range is min 64, opt 32, max 128",
        ),
        (
            [IDS],
            [{"ids": ranges([0, 1], [8, 64], [32, 128])}],
            "profile 0, input 'ids' [-1, -1], axis 0: the range is min 0, opt 8, max 32",
        ),
        (
            [IMAGE],
            [{"image": ranges([1, 3, 224, 224], [8, 3, 256, 224], [32, 3, 512, 224])}],
            "profile 0, input 'image' [-1, 3, 224, 224], axis 2: the range 224..256..512 leaves the graph's fixed size "
            "224",
        ),
        (
            [SIZES],
            [{}],
            "profile 0, input 'sizes' [2] is a shape tensor (its values decide shapes) and its values have no range",
        ),
        ([SIZES], [{"values": {"sizes": ranges([1], [1], [1])}}], "profile 0, input 'sizes' [2]: min has 1 values"),
        (
            [SIZES],
            [{"values": {"sizes": ranges([1, 9], [2, 3], [4, 6])}}],
            "profile 0, input 'sizes' [2], value 1: the range is min 9, opt 3, max 6",
        ),
        (
            [{**SIZES, "shape": [-1]}],
            [{"values": {"sizes": ranges([1], [1], [1])}}],
            "profile 0, input 'sizes' [-1] is a shape tensor of a dynamic or higher shape",
        ),
    ],
)
def test_profiles_that_do_not_fit_are_refused(worker: Any, inputs: list[Any], profiles: list[Any], found: str):
    module = worker("profiles")
    with pytest.raises(module.Refused) as caught:
        module.check(inputs, profiles)
    assert caught.value.found == found
