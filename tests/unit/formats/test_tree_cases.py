"""Rows drawn from thresholds, and LightGBM's thresholds as float32, without any framework."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from repo_builder.formats.framework_session import WORKERS


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WORKERS))

    def load(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        module = __import__(name)
        sys.modules.pop(name)
        assert Path(str(module.__file__)).parent == WORKERS
        return module

    return load


class Booster:
    """A stand-in for lightgbm.Booster: its text."""

    def __init__(self, thresholds: str, decisions: str, more: str = "") -> None:
        self.text = f"tree\n{more}\nTree=0\nthreshold={thresholds}\ndecision_type={decisions}\nleft_child=-1\n"

    def model_to_string(self) -> str:
        return self.text


@pytest.mark.parametrize(
    ("threshold", "decision", "wanted", "told"),
    [
        (0.1, 2, float(np.nextafter(np.float32(0.1), np.float32(0))), 2),
        (0.5, 2, 0.5, 2),
        (0.5, 0, 0.5, 2),  # no missing values: NaN counts as 0, which lies left of it
        (-0.5, 2, -0.5, 0),
        (-0.5, 10, -0.5, 10),  # missing values are NaN: as it was
        (0.5, 8, 0.5, 8),
        (1.0000000180025095e-35, 2, float(np.float32(1e-35)), 2),
        (0.0, 2, float(np.float32(1e-35)), 2),
        (-1.0000000180025095e-35, 2, float(np.nextafter(-np.float32(1e-35), np.float32(-1))), 0),
        (1e300, 2, float(np.finfo(np.float32).max), 2),
    ],
)
def test_thresholds_are_rounded_down_and_nan_goes_where_lightgbm_sends_it(
    worker: Any, threshold: float, decision: int, wanted: float, told: int
) -> None:
    module = worker("lightgbm_float32")
    found = module._SPLITS.sub(module._one_tree, f"threshold={threshold!r}\ndecision_type={decision}\n")
    assert found == f"threshold={wanted!r}\ndecision_type={told}\n"


def test_categories_keep_their_place(worker: Any) -> None:
    module = worker("lightgbm_float32")
    text = "threshold=1 0.1\ndecision_type=1 10\n"
    first, _, second = (
        module._SPLITS.sub(module._one_tree, text).splitlines()[0].removeprefix("threshold=").partition(" ")
    )
    assert first == "1"
    assert float(second) < 0.1


@pytest.mark.parametrize(
    ("booster", "text"),
    [
        (Booster("0.5 -0.5", "6 6"), "takes 0 for a missing value"),
        (Booster("0.5 -0.5", "4 4"), "takes 0 for a missing value"),
        (Booster("0.5", "2", "objective=binary sigmoid:2"), "sigmoid other than 1"),
        (Booster("0.5", "2", "average_output"), "random forest"),
        (Booster("0.5", "2", "is_linear=1"), "leaves are linear"),
    ],
)
def test_what_is_refused(worker: Any, booster: Booster, text: str) -> None:
    assert text in worker("lightgbm_float32").refused(booster)[0]


def test_zeros_that_go_where_zero_goes_are_no_matter(worker: Any) -> None:
    booster = Booster("0.5 -0.5 3", "6 4 5", "objective=binary sigmoid:1\nis_linear=0")
    assert worker("lightgbm_float32").refused(booster) is None


def test_rows_lie_at_below_and_above_each_threshold(worker: Any) -> None:
    module = worker("tree_cases")
    splits = module.Splits(3)
    splits.thresholds[0].update([0.1, -2.5])
    splits.codes[1].update([3, 5])
    cases = module.drawn(splits)
    assert [len(case) for case in cases] == [2, 192, 192, 192, 192, 192, 1]
    assert {case.dtype for case in cases} == {np.dtype(np.float32)}
    many, between, zeros, lacking = cases[1], cases[3], cases[4], cases[5]
    for threshold in (np.float32(0.1), np.float32(-2.5)):
        for value in (threshold, *(np.nextafter(threshold, np.float32(way)) for way in (-np.inf, np.inf))):
            assert value in many[:, 0]
    assert 0 in many[:, 0]
    assert set(many[:, 1]) == {3, 5, 6, 12}
    assert np.isclose(between[:, 0], -1.2).any()
    assert (zeros == 0).mean() > 0.15
    assert 0.1 < np.isnan(lacking).mean() < 0.3


def test_a_threshold_at_infinity_brings_no_infinity(worker: Any) -> None:
    module = worker("tree_cases")
    splits = module.Splits(2)
    splits.thresholds[0].update([np.inf, -np.inf, 1e300, 0.5])
    splits.thresholds[1].add(np.inf)
    assert not any(np.isinf(case).any() for case in module.drawn(splits))
    assert 0.5 in module.drawn(splits)[1][:, 0]


def test_cases_that_are_refused_and_ties_are_left_out(worker: Any) -> None:
    def run(arrays: list[Any]) -> list[Any]:
        (rows,) = arrays
        if np.isnan(rows).any():
            raise ValueError("NaN")
        return [rows[:, 0] > 0.5, np.concatenate([1 - rows, rows], axis=1)]

    given = [
        [np.array([[0.5], [0.2]], np.float32)],
        [np.array([[np.nan]], np.float32)],
        [np.array([[0.5]], np.float32)],
    ]
    (kept,) = worker("tree_cases").taken(given, run)
    assert kept[0].tolist() == [[np.float32(0.2)]]
