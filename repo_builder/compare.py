"""Served against source: the errors of one output, by every measure of the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from repo_builder.proof import Tolerance

Array = np.ndarray[Any, Any]

_FLOOR = 0.01
"""Sources whose largest value is smaller count as this large: what is left of a cancellation is no scale."""

_BEFORE, _SHOWN = 16, 24
"""Bytes that are shown of two strings, before and after they part."""
_ROUNDING = 5e-6
"""What rounding of fp32 makes of a row's values, by its largest."""
_COARSEST = 2e-2
"""The most that counts as an error of a row's order, by its largest value: wrong values free no entries."""


@dataclass(frozen=True)
class Errors:
    """Differences of one output, or the worst of several.

    Attributes:
        max_abs_error: largest absolute difference; for integers and strings the share of unequal elements.
        max_rel_error: largest absolute difference over ``max(0.01, max|source|)``.
        cosine: smallest cosine of a case; 1 where the source is all zeros and equal.
        problem: what cannot be measured by a number (shape or dtype differs), or an empty string.
        where: the case that is worst, and the place of the largest difference in it.
    """

    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    cosine: float = 1.0
    problem: str = ""
    where: str = ""

    def passes(self, limit: Tolerance, exact: bool) -> bool:
        if self.problem:
            return False
        if exact:
            return self.max_abs_error == 0.0
        return (
            (limit.max_abs_error is None or self.max_abs_error <= limit.max_abs_error)
            and (limit.max_rel_error is None or self.max_rel_error <= limit.max_rel_error)
            and (limit.cosine is None or self.cosine >= limit.cosine)
        )

    def worst(self, other: Errors) -> Errors:
        """The larger error by every measure; ``where`` names the case of the larger absolute one."""
        larger = other if other.problem or other.max_abs_error > self.max_abs_error else self
        larger = self if self.problem else larger
        return Errors(
            max(self.max_abs_error, other.max_abs_error),
            max(self.max_rel_error, other.max_rel_error),
            min(self.cosine, other.cosine),
            self.problem or other.problem,
            larger.where or other.where or self.where,
        )


def is_exact(array: Array) -> bool:
    """Integers, booleans and strings must be equal."""
    return array.dtype.kind not in "fc"


def compare(served: Array, source: Array, where: str) -> Errors:
    """The errors of one output of one case."""
    if served.shape != source.shape:
        return _cannot(f"shape {list(served.shape)} served, {list(source.shape)} in the source", where)
    if is_exact(served) != is_exact(source):
        return _cannot(f"dtype {served.dtype} served, {source.dtype} in the source", where)
    if source.size == 0:
        return Errors(where=where)
    if is_exact(source):
        unequal = float(np.mean(_plain(served) != _plain(source)))
        if unequal and source.dtype.kind in "OSU":
            where = f"{where}: {_difference(_plain(served), _plain(source))}"
        return Errors(unequal, unequal, 1.0 - unequal, where=where)
    a, b = served.astype(np.float64).reshape(-1), source.astype(np.float64).reshape(-1)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return _cannot("NaN or infinity on one side only", where)
    a, b = a[finite], b[finite]
    if b.size == 0:
        return Errors(where=where)
    differences = np.abs(a - b)
    worst = int(np.argmax(differences))
    error = float(differences[worst])
    if error and source.ndim:
        place = np.unravel_index(np.flatnonzero(finite)[worst], source.shape)
        where = f"{where} at [{', '.join(str(int(axis)) for axis in place)}]"
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.dot(a, b) / norms) if norms else float(np.array_equal(a, b))
    return Errors(error, error / max(_FLOOR, float(np.max(np.abs(b)))), min(cosine, 1.0), where=where)


def masked(array: Array, mask: Array | None) -> Array:
    """The positions where ``mask`` is 1, row by row; the array itself without a mask."""
    chosen: Array = array if mask is None else array[mask.astype(bool)]
    return chosen


def settled(served: Array, source: Array, served_values: Array, source_values: Array, *, whole: bool = False) -> Array:
    """``served`` with the source's order where rounding alone decides it.

    Neighbours whose source values lie no further apart than twice the error may change places with each other, and
    those at the end also with entries that the source did not keep, unless it keeps the ``whole``. The error is the
    largest difference of the row, at least rounding (values in order hide the error of those that changed places), at
    most ``_COARSEST``.

    Args:
        served, source: entries (indices, labels) in descending order of their values along the last axis; ``served``
            may be padded at the end of the axes before it.
        served_values, source_values: those values, of the same shapes.
    """
    own = tuple(slice(size) for size in source.shape)
    fits = served.ndim == source.ndim > 0 and served.shape[-1] == source.shape[-1]
    if not fits or served[own].shape != source.shape or served_values.shape != served.shape:
        return served
    chosen: Array = served.copy()
    strings = source.dtype.kind in "OSU"  # two entries may have one name
    for row in np.ndindex(source.shape[:-1]):
        values = source_values[row].astype(np.float64)
        error = np.abs(served_values[row].astype(np.float64) - values).max(initial=0.0)
        size = np.abs(values).max(initial=0.0)
        error = min(max(error, _ROUNDING * size), _COARSEST * size)
        starts = [0, *(np.flatnonzero(np.abs(np.diff(values)) > 2 * error) + 1).tolist(), len(values)]
        mine, theirs = list(_plain(served[row])), list(_plain(source[row]))
        for start, end in pairwise(starts):
            new: set[Any] = set() if strings else set(mine[start:end]) - set(theirs[start:end])
            lost = not whole and end == len(values) > 1 and new.isdisjoint(theirs[:start])
            lost = lost and (strings or _repeated(mine) <= _repeated(theirs))
            if lost or Counter(mine[start:end]) == Counter(theirs[start:end]):
                chosen[row][start:end] = source[row][start:end]
    return chosen


def _repeated(entries: list[Any]) -> set[Any]:
    return {entry for entry, count in Counter(entries).items() if count > 1}


def _difference(served: Array, source: Array) -> str:
    """The first strings that differ, from a little before the first byte that does."""
    pairs = zip(served.reshape(-1), source.reshape(-1), strict=True)
    mine, theirs = next((bytes(a), bytes(b)) for a, b in pairs if a != b)
    same = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    start = max(0, same - _BEFORE)
    shown = [part[start : same + _SHOWN].decode("utf-8", errors="replace") for part in (mine, theirs)]
    return f"{shown[0]!r} served, {shown[1]!r} in the source" + (f" (from byte {start})" if start else "")


def _cannot(problem: str, where: str) -> Errors:
    return Errors(float("inf"), float("inf"), -1.0, problem, where)


def _plain(array: Array) -> Array:
    if array.dtype.kind not in "OSU":
        return array
    flat = [v if isinstance(v, bytes) else str(v).encode() for v in array.reshape(-1)]
    shaped: Array = np.array(flat, dtype=object).reshape(array.shape)
    return shaped
