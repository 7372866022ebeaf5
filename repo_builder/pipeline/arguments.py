"""``--input NAME=VALUE``: arrays from files, texts and numbers as they are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import SourceMissingError, UsageError
from repo_builder.tensors import TensorSpec

_EXAMPLE = "for example --input x=x.npy, --input QUESTION='Who?', or --input seed=1"
Given = dict[str, list[Any]]
"""By input: its array, or what was written for it, one or several times."""


def parse(arguments: Sequence[str]) -> Given:
    """Read the files, keep the rest as it is written.

    Raises:
        UsageError: not NAME=VALUE, a file that is no array, or a file beside other values.
        SourceMissingError: a file that is not there.
    """
    found: Given = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise UsageError(f"--input {argument!r} is not NAME=VALUE", mend=_EXAMPLE)
        several = found.setdefault(name, [])
        several.append(_array(name, value) if value.endswith(".npy") else value)
        if len(several) > 1 and any(isinstance(one, np.ndarray) for one in several):
            raise UsageError(f"--input {name} is given a file and other values", expected="one file", mend=_EXAMPLE)
    return found


def fit(given: Given, wanted: Sequence[TensorSpec]) -> dict[str, Any]:
    """One row of every input: texts where the model takes BYTES, JSON where it takes numbers.

    An input that the model does not have stays as it is given: the client refuses it.

    Raises:
        UsageError: the value is no number.
    """
    specs = {spec.name: spec for spec in wanted}
    fitted = {}
    for name, several in given.items():
        if name not in specs or isinstance(several[0], np.ndarray):
            fitted[name] = several[0]
        else:
            fitted[name] = _row(specs[name], several)
    return fitted


def _row(spec: TensorSpec, several: Sequence[str]) -> Any:
    if spec.dtype == "BYTES":
        row: Any = np.array([text.encode("utf-8", "surrogateescape") for text in several], dtype=object)
    else:
        try:
            values = [json.loads(value) for value in several]
            row = np.asarray(values[0] if len(values) == 1 else values)
        except ValueError as error:
            raise UsageError(
                f"--input {spec.name}={several[0]} is no number ({error})", expected=str(spec), mend=_EXAMPLE
            ) from error
    missing = len(spec.shape) - row.ndim
    return row.reshape((1,) * missing + row.shape).tolist() if missing > 0 else row.tolist()


def _array(name: str, file: str) -> np.ndarray[Any, Any]:
    path = Path(file)
    if not path.is_file():
        raise SourceMissingError(f"--input {name}: there is no file {file}", expected="a .npy file")
    try:
        array: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(
            f"--input {name}: {file} is no array without pickles ({error})", mend="save it with numpy.save"
        ) from error
    return array
