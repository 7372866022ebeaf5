"""Rows into batches and batches back into rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError

Row = Mapping[str, Any]


def chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Consecutive lists of ``size`` rows (the last may be shorter); takes no more rows than it hands on."""
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


def join(rows: Sequence[Row], model: str) -> dict[str, Any]:
    """The inputs of one request for ``rows``: arrays stacked along a new first axis, anything else as a list.

    Raises:
        InferenceError: rows name different inputs, or their arrays differ in shape.
    """
    names = list(rows[0])
    for row in rows:
        if set(row) != set(names):
            raise InferenceError(
                f"a row has inputs {sorted(row)}",
                expected=f"the inputs of the first row of its batch, {sorted(names)}",
                model=model,
            )
    return {name: _column([row[name] for row in rows], name, model) for name in names}


def _column(values: list[Any], name: str, model: str) -> Any:
    if not any(isinstance(value, np.ndarray) for value in values):
        return values
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        shapes = sorted({np.shape(value) for value in values})
        raise InferenceError(
            f"rows of input '{name}' have shapes {', '.join(str(list(s)) for s in shapes)}",
            expected="one shape within a batch",
            mend="pad the rows to one length, or use batch_size=1",
            model=model,
        ) from error


def split(outputs: Mapping[str, Array], count: int, model: str) -> Iterator[dict[str, Array]]:
    """One dict per row, the batch axis taken off.

    Raises:
        InferenceError: an output has not one row per input row.
    """
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != count:
            raise InferenceError(
                f"output '{name}' has shape {list(array.shape)} for a batch of {count}",
                expected=f"a first axis of {count}, one row per row sent",
                mend="use infer(): this model does not answer row by row",
                model=model,
            )
    for i in range(count):
        yield {name: array[i] for name, array in outputs.items()}
