"""Sample requests of text tasks: the spec's own, or made from the built-in texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks.tokenizer import TEXT_LAYOUT, Layout

Row = Mapping[str, Sequence[str]]
"""One request of one row: for every public input its texts, one or more."""


def built_in() -> list[str]:
    """64 texts: empty, long, many scripts."""
    return list(json.loads(Path(__file__).with_name("sample_texts.json").read_text(encoding="utf-8")))


def texts(model: ModelSpec) -> list[str]:
    """The rows of a task with the one input TEXT."""
    return [row["TEXT"][0] for row in rows(model, TEXT_LAYOUT, lambda own: [{"TEXT": [text]} for text in own])]


def rows(model: ModelSpec, layout: Layout, make: Callable[[list[str]], Iterable[Row]]) -> list[Row]:
    """The spec's samples, or what ``make`` makes of the built-in texts.

    A sample is a mapping of input name to text (or texts, where the input has an axis for them); for a task whose only
    input is one text, the text itself.

    Raises:
        SpecError, SourceMissingError: the samples are not there or do not fit the inputs.
    """
    asked = model.samples.texts
    if asked is None:
        return list(make(built_in()))
    given = _read(Path(asked)) if isinstance(asked, str) else list(asked)
    if not given:
        raise SpecError("samples.texts is empty", expected="one text or more", mend="leave it out", stage="proof")
    return [_row(sample, number, layout) for number, sample in enumerate(given)]


def request(row: Row) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs of one request: BYTES of shape [1, texts]."""
    return {name: np.array([[text.encode("utf-8") for text in several]], dtype=object) for name, several in row.items()}


def _row(sample: Any, number: int, layout: Layout) -> Row:
    inputs = layout.inputs
    if isinstance(sample, str) and list(inputs.values()) == [1]:
        sample = dict.fromkeys(inputs, sample)
    example = "{" + ", ".join(f"{name}: {'...' if size == 1 else '[...]'}" for name, size in inputs.items()) + "}"
    found = {}
    if isinstance(sample, Mapping):
        found = {key: tuple(value) if isinstance(value, (list, tuple)) else (value,) for key, value in sample.items()}
    fits = set(found) == set(inputs) and all(
        len(found[name]) == size or (size == -1 and found[name]) for name, size in inputs.items()
    )
    if not fits or not all(isinstance(text, str) for several in found.values() for text in several):
        raise SpecError(
            f"samples.texts[{number}] is {str(sample)[:80]!r}",
            expected=f"{example}: one request of this task",
            mend="write every sample so",
            stage="proof",
        )
    try:
        request(found)
    except UnicodeEncodeError as error:
        raise SpecError(
            f"samples.texts[{number}] holds {error.object[error.start]!r}, half of a character",
            expected="text that UTF-8 can carry",
            mend="correct the sample (JSON writes characters beyond U+FFFF as two escapes, never one)",
            stage="proof",
        ) from error
    return found


def _lines(content: str) -> list[str]:
    """Only a newline ends a text: ``str.splitlines`` would end it at U+2028, form feeds and the like as well."""
    return content.removesuffix("\n").split("\n") if content else []


def _read(path: Path) -> list[Any]:
    if not path.is_file():
        raise SourceMissingError(f"the file of sample texts {path} does not exist", stage="proof")
    try:
        content = path.read_text(encoding="utf-8")
        found = json.loads(content) if path.suffix == ".json" else _lines(content)
    except ValueError as error:
        raise SpecError(f"{path} cannot be read ({error})", expected="UTF-8 text or JSON", stage="proof") from error
    if not isinstance(found, list) or not found:
        raise SpecError(f"{path} holds no list of texts", expected="a text a line, or a JSON list", stage="proof")
    return found
