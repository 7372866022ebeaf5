"""Inputs that try an estimator: its trees' thresholds, its encoders' categories, and values as it was fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np
import tree_cases
from sklearn_inputs import Inputs, last, parts

_ROWS, _UNKNOWN, _SPREAD = 64, "no such category", 1.5
_FITTED = (("mean_", "scale_"), ("center_", "scale_"), ("data_min_", "data_range_"), ("min_", "max_abs_"))
_ROWS_KEPT = ("_fit_X", "support_vectors_", "X_train_", "cluster_centers_", "means_", "theta_")


def made(estimator: Any, inputs: Inputs, splits: tree_cases.Splits | None) -> list[list[Any]]:
    """Cases for the inputs; those that the estimator refuses are still among them.

    Args:
        splits: the thresholds of its trees, in the space of its last step; None where it has none.
    """
    rng = np.random.default_rng(7)
    if inputs.text:
        return [[np.array(texts, object).reshape(-1, 1)] for texts in _texts(estimator, rng)]
    tables = []
    if splits is not None and not inputs.strings:
        if last(estimator) is estimator:
            tables += tree_cases.drawn(splits)
        else:  # between thresholds: a scaler before the trees rounds, here and there
            tables += _before(estimator, tree_cases.drawn(splits, around=False))
    seen = _seen(estimator, inputs)
    for rows, more in ((2, ""), (_ROWS, ""), (_ROWS, "zeros"), (_ROWS, "nan"), (_ROWS, "unknown"), (1, "")):
        columns = [_column(one, rows, more, rng) for one in seen]
        table = np.empty((rows, len(columns)), object if inputs.strings else np.float32)
        for place, values in enumerate(columns):
            table[:, place] = values
        if more != "unknown" or inputs.strings:
            tables.append(table)
    return [inputs.arrays(table) for table in tables]


def _column(seen: Any, rows: int, more: str, rng: Any) -> Any:
    if isinstance(seen, list):
        values = np.resize(
            rng.permutation(np.array([*seen, _UNKNOWN, ""] if more == "unknown" else seen, object)), rows
        )
        return rng.permutation(values)
    centre, spread = seen
    values = (centre + spread * _SPREAD * rng.standard_normal(rows)).astype(np.float32)
    if more in ("zeros", "nan"):
        values[rng.random(rows) < 0.2] = 0 if more == "zeros" else np.nan
    return values


def _seen(estimator: Any, inputs: Inputs) -> list[Any]:
    """Of each column its categories, or a centre and a spread of its numbers."""
    found: list[Any] = [(0.0, 1.0)] * inputs.width
    sources = parts(estimator, list(range(inputs.width)), inputs.columns)
    for step in _steps(estimator):
        if hasattr(step, "transformers_"):
            for name, transformer, _ in step.transformers_:
                places = list(step._transformer_to_input_indices[name])
                sources += [(one, places) for one in _steps(transformer)] if not isinstance(transformer, str) else []
        elif getattr(step, "n_features_in_", None) == inputs.width:
            sources.append((step, list(range(inputs.width))))
    for transformer, places in sources:
        for place, value in zip(places, _told(transformer, len(places)), strict=False):
            if isinstance(value, list) or not isinstance(found[place], list):
                found[place] = value
    return found


def _steps(estimator: Any) -> list[Any]:
    return [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]


def _told(transformer: Any, width: int) -> list[Any]:
    if hasattr(transformer, "categories_"):
        kinds = [[one for one in values if one == one and one is not None] for values in transformer.categories_]
        return [v if isinstance(v[0], str) else (np.mean(np.float64(v)), np.std(np.float64(v))) for v in kinds]
    for centre, spread in _FITTED:
        if getattr(transformer, centre, None) is not None and np.shape(getattr(transformer, spread, None)) == (width,):
            centres, spreads = (np.asarray(getattr(transformer, one), np.float64) for one in (centre, spread))
            return list(zip(centres, np.where(spreads == 0, 1.0, spreads), strict=True))
    for name in _ROWS_KEPT:
        rows = getattr(transformer, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == width and rows.dtype.kind == "f":
            return list(zip(rows.mean(axis=0), rows.std(axis=0) + 0.1, strict=True))
    if getattr(transformer, "statistics_", None) is not None:
        values = list(transformer.statistics_)
        return [[v] if isinstance(v, str) else (float(v), abs(float(v)) / 2 + 0.1) for v in values]
    return []


def _before(estimator: Any, tables: list[Any]) -> list[Any]:
    """Where the steps before the last can be undone: the tables that become these in front of it."""
    try:
        return [np.asarray(estimator[:-1].inverse_transform(table), np.float32) for table in tables]
    except Exception:  # noqa: BLE001  no inverse, or none of these values
        return []


def _texts(estimator: Any, rng: Any) -> list[list[str]]:
    vectorizer = next(step for step in _steps(estimator) if hasattr(step, "vocabulary_"))
    words = sorted(map(str, vectorizer.vocabulary_))
    words = [*rng.choice(words, min(len(words), 200), replace=False), "unknownword", "Wörter", "42", "a", "I'm"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(_ROWS)]
    marks = [text.replace(" ", ", ").capitalize() + "!" for text in texts[: _ROWS // 2]]
    return [texts[:2], texts, [text.upper() for text in texts[:8]], marks, ["", *texts[:3]], texts[:1]]


def splits(final: Any, width: int) -> tree_cases.Splits | None:
    """The thresholds of scikit-learn's own trees."""
    found, any_tree = tree_cases.Splits(width), False
    trees = [final] if hasattr(final, "tree_") else list(np.ravel(getattr(final, "estimators_", ())))
    for tree in (one.tree_ for one in trees if hasattr(one, "tree_")):
        any_tree = True
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            if 0 <= feature < width:
                found.thresholds[feature].add(float(threshold))
    for predictor in np.ravel(np.array(getattr(final, "_predictors", ()), object)):
        any_tree = True
        for node in predictor.nodes[predictor.nodes["is_leaf"] == 0]:
            found.thresholds[int(node["feature_idx"])].add(float(node["num_threshold"]))
    return found if any_tree else None
