"""What pydantic found wrong with a spec, as one error of ours with file, line and the nearest known key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from repo_builder.errors import SpecError, nearest

if TYPE_CHECKING:
    from pydantic import ValidationError

    from repo_builder.yaml_strict import Document

Keys = Callable[[tuple[Any, ...]], list[str]]
"""From the place of an unknown key to the keys that are known there."""

_SHOWN = 10
_UNION_ARMS = {"int", "str", "float", "bool"}
_SAID = {
    "missing": "is missing",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "model_type": "must be a mapping of keys to values",
    "mapping_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "string_type": "must be a string",
    "int_from_float": "must be a whole number",
}
"""Plainer words for some of pydantic's messages, by its type of error."""


def readable(error: ValidationError, document: Document | None, keys: Keys) -> SpecError:
    """The error to raise; ``document`` is None for values of the command line."""
    problems = error.errors()
    outer = {p["loc"][:n] for p in problems for n in range(len(p["loc"]))}
    lines = list(dict.fromkeys(_line(p, document, keys) for p in problems if p["loc"] not in outer))
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    schema = "`repo-builder build --schema` prints the JSON Schema for your editor"
    return SpecError(
        "; ".join(lines[:_SHOWN]) + more,
        expected="the keys of docs/spec.md",
        mend=f"correct the lines named above; {schema}" if document else "see `repo-builder build --help`",
        stage="spec",
    )


def _line(problem: Any, document: Document | None, keys: Keys) -> str:
    location = tuple(p for p in problem["loc"] if not (isinstance(p, str) and ("[" in p or p in _UNION_ARMS)))
    if document:
        place = ".".join(str(p) for p in location)
        at = f"{document.path}:{document.line(location) or 1}{': ' if place else ''}{place}"
    else:
        at = ".".join(str(p) for p in location[2:])
    message = _SAID.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        message = f"unknown key{nearest(str(location[-1]), keys(location))}"
    elif problem["type"] not in ("missing", "value_error"):
        message += f", found {repr(problem['input'])[:100]}"
    return f"{at}: {message}" if at else message
