"""LightGBM compares doubles and knows three kinds of missing values; ONNX compares float32 and knows NaN alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_SPLITS = re.compile(r"^threshold=(.*)\ndecision_type=(.*)$", re.MULTILINE)
_SMALLEST = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold: what is no larger counts as 0."""
_CATEGORICAL, _LEFT, _ZERO, _NAN = 1, 2, 4, 8
_NOT_CARRIED = (
    (r"^is_linear=1", "the model's leaves are linear (linear_tree)", "leaves that are numbers"),
    (r"^average_output$", "the model is a random forest (boosting=rf)", "boosting=gbdt or dart"),
    (r"^objective=binary sigmoid:(?!1$)", "the model's objective has a sigmoid other than 1", "sigmoid=1"),
)


def refused(booster: Any) -> tuple[str, str, str] | None:
    """Why a model cannot be carried: found, expected, mend."""
    text = booster.model_to_string()
    for line, found, expected in _NOT_CARRIED:
        if re.search(line, text, re.MULTILINE):
            return found, expected, "train it otherwise"
    for thresholds, decisions in _SPLITS.findall(text):
        for threshold, decision in zip(thresholds.split(), map(int, decisions.split()), strict=True):
            if decision & _ZERO and not decision & _CATEGORICAL and bool(decision & _LEFT) != (float(threshold) >= 0):
                return (
                    "the model takes 0 for a missing value (zero_as_missing), which ONNX cannot say",
                    "NaN for missing values, or none",
                    "train with zero_as_missing=false and NaN where a value is missing",
                )
    return None


def rounded(booster: Any) -> Any:
    """The same model for float32 inputs: thresholds rounded down, and NaN sent where LightGBM sends it."""
    import lightgbm

    text = _SPLITS.sub(_one_tree, booster.model_to_string())
    return lightgbm.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))


def _rounded_down(threshold: float) -> Any:
    """The float32 below which the same float32 values lie as below ``threshold``."""
    below = np.float32(-np.inf)
    if -_SMALLEST <= threshold < 0:
        return np.nextafter(np.float32(-_SMALLEST), below)
    if 0 <= threshold < _SMALLEST:
        return np.float32(_SMALLEST)
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    return np.nextafter(near, below) if float(near) > threshold else near


def _one_tree(found: Any) -> str:
    thresholds, decisions = found[1].split(), [int(one) for one in found[2].split()]
    for place, decision in enumerate(decisions):
        if decision & _CATEGORICAL:
            continue
        near = _rounded_down(float(thresholds[place]))
        thresholds[place] = repr(float(near))
        if not decision & (_ZERO | _NAN):  # NaN counts as 0 there
            decisions[place] = decision | _LEFT if near >= 0 else decision & ~_LEFT
    return f"threshold={' '.join(thresholds)}\ndecision_type={' '.join(map(str, decisions))}"
