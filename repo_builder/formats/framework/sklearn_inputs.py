"""What a fitted estimator wants to be asked: one matrix, one text, or a tensor for each column of its table."""

from __future__ import annotations

from typing import Any

import numpy as np

_TEXTS = ("CountVectorizer", "TfidfVectorizer")


class Inputs:
    """The served inputs of an estimator.

    Attributes:
        columns: their names, or None where it was fitted with arrays.
        strings: places of columns that hold strings.
        specs: name, is a string, width of each input.
    """

    def __init__(self, estimator: Any) -> None:
        names = getattr(estimator, "feature_names_in_", None)
        self.columns = None if names is None else [str(name) for name in names]
        self.text = type(first(estimator)).__name__ in _TEXTS
        self.width = 1 if self.text else int(estimator.n_features_in_)
        self.strings = set() if self.text else strings(estimator, list(range(self.width)), self.columns)
        if self.text:
            self.specs = [("text", True, 1)]
        elif not self._apart(estimator):
            self.specs = [("features", bool(self.strings), self.width)]
        else:
            named = self.columns or [f"column_{place}" for place in range(self.width)]
            self.specs = [(name, place in self.strings, 1) for place, name in enumerate(named)]

    def _apart(self, estimator: Any) -> bool:
        """Whether columns are no one matrix: of two kinds, or with names that a step chooses them by."""
        if self.columns is None:
            return 0 < len(self.strings) < self.width
        chosen = getattr(first(estimator), "transformers", ())
        named = any(isinstance(name, str) for _, _, names in chosen for name in np.ravel(names))
        return named or bool(self.strings)

    def arrays(self, table: Any) -> list[Any]:
        """The inputs' arrays for a table [rows, columns]; an object array where there are strings."""
        if len(self.specs) == 1:
            return [table if self.specs[0][1] else table.astype(np.float32)]
        return [
            table[:, [place]].astype(object if text else np.float32)
            for place, (_, text, _width) in enumerate(self.specs)
        ]

    def given(self, arrays: list[Any]) -> Any:
        """What the estimator's methods take: texts, an array, or a pandas table with its columns' names."""
        if self.text:
            return [str(text) for text in arrays[0].reshape(-1)]
        arrays = [array.astype(object) if array.dtype.kind in "SU" else array for array in arrays]
        if self.columns is None:
            return arrays[0] if len(arrays) == 1 else np.concatenate([a.astype(object) for a in arrays], axis=1)
        import pandas

        if len(arrays) == 1:
            return pandas.DataFrame(arrays[0], columns=self.columns)
        return pandas.DataFrame({n: array[:, 0] for n, array in zip(self.columns, arrays, strict=True)})


def first(estimator: Any) -> Any:
    """The first step that does something."""
    steps = [step for _, step in getattr(estimator, "steps", ()) if step not in (None, "passthrough")]
    return first(steps[0]) if steps else estimator


def last(estimator: Any) -> Any:
    """The last step of pipelines in pipelines."""
    return last(estimator.steps[-1][1]) if hasattr(estimator, "steps") else estimator


def parts(estimator: Any, places: list[int], columns: Any) -> list[tuple[Any, list[int]]]:
    """The fitted transformers that see columns as they are given, with those columns' places."""
    if hasattr(estimator, "steps"):
        return parts(first(estimator), places, columns)
    if hasattr(estimator, "transformers_"):
        chosen = estimator._transformer_to_input_indices
        found = []
        for name, transformer, _ in estimator.transformers_:
            if not isinstance(transformer, str):
                found += parts(transformer, [places[place] for place in chosen[name]], columns)
        return found
    if hasattr(estimator, "transformer_list"):
        return [part for _, one in estimator.transformer_list for part in parts(one, places, columns)]
    return [(estimator, places)]


def strings(estimator: Any, places: list[int], columns: Any) -> set[int]:
    """Places of the columns that hold strings, as the fitted transformers tell it."""
    found: set[int] = set()
    for transformer, taken in parts(estimator, places, columns):
        if type(transformer).__name__ in _TEXTS:
            found.update(taken)
        told = getattr(transformer, "categories_", None)
        if told is None:
            told = getattr(transformer, "statistics_", None)
        for place, values in zip(taken, told if told is not None else (), strict=False):
            if any(isinstance(value, str) for value in np.atleast_1d(np.asarray(values, object))):
                found.add(place)
    return found
