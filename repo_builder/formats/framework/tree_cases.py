"""Rows that try a tree ensemble: each column's values lie at, just below and just above its thresholds, as float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_LARGEST = float(np.finfo(np.float32).max) / 4
_THRESHOLDS, _ROWS, _SHARE, _TIE = 60, 192, 0.2, 1e-5


class Splits:
    """What the nodes of an ensemble compare each column with."""

    def __init__(self, columns: int) -> None:
        self.thresholds: list[set[float]] = [set() for _ in range(columns)]
        self.codes: list[set[float]] = [set() for _ in range(columns)]

    def values(self, column: int, rng: Any, around: bool) -> Any:
        """Candidates of one column; ``around``: with the neighbours of each threshold, else between thresholds."""
        if self.codes[column]:
            codes = sorted(self.codes[column])
            return np.array([*codes, codes[-1] + 1, codes[-1] + 7], np.float32)
        found = np.array(sorted(self.thresholds[column]), np.float64)
        found = found[np.abs(found) < _LARGEST]  # a split off of NaN alone has infinity
        if not len(found):
            return rng.standard_normal(8).astype(np.float32)
        if len(found) > _THRESHOLDS:
            found = rng.choice(found, _THRESHOLDS, replace=False)
        near = found.astype(np.float32)
        if around:
            infinity = np.float32(np.inf)
            near = np.concatenate([near, np.nextafter(near, -infinity), np.nextafter(near, infinity)])
        else:
            near = ((found[1:] + found[:-1]) / 2).astype(np.float32)
        wide = np.float32(np.abs(found).max() * 2 + 1)
        return np.concatenate([near, [np.float32(0), wide, -wide]])


def drawn(splits: Splits, around: bool = True) -> list[Any]:
    """Matrices [rows, columns]: two rows, many rows, a fifth zeros, a fifth NaN, one row; as ``Splits.values``."""
    rng = np.random.default_rng(7)

    def matrix(rows: int, around: bool = around) -> Any:
        columns = [splits.values(place, rng, around) for place in range(len(splits.thresholds))]
        return np.stack([rng.permutation(np.resize(rng.permutation(one), rows)) for one in columns], axis=1)

    zeros, lacking = matrix(_ROWS), matrix(_ROWS)
    zeros[rng.random(zeros.shape) < _SHARE] = 0
    lacking[rng.random(lacking.shape) < _SHARE] = np.nan
    return [matrix(2), matrix(_ROWS), matrix(_ROWS), matrix(_ROWS, around=False), zeros, lacking, matrix(1)]


def taken(cases: list[list[Any]], run: Callable[[list[Any]], list[Any]]) -> list[list[Any]]:
    """The cases that the framework answers (not all take NaN), without rows whose label rounding alone decides."""
    kept = []
    for arrays in cases:
        try:
            answers = run(arrays)
        except Exception:  # noqa: BLE001  a library refuses in ways of its own
            continue
        if len(answers) > 1 and answers[1].ndim == 2 and answers[1].shape[1] > 1:
            ordered = np.sort(answers[1], axis=1)
            clear = ~(ordered[:, -1] - ordered[:, -2] <= _TIE)
            arrays = [array[clear] for array in arrays]
        if len(arrays[0]):
            kept.append(arrays)
    return kept
