"""Scalars from YAML, checked: text, numbers, booleans and enum names, with the traps of YAML named."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from repo_builder.errors import SpecError, nearest
from repo_builder.model_config.fields import INTEGERS, KINDS


def scalar(field: Any, value: Any, path: str) -> Any:
    """The value as the field takes it; a whole float counts as an integer, nothing else is converted.

    Raises:
        SpecError: wrong type, range or enum name; ``path`` is named.
    """
    kind = KINDS[field.cpp_type]
    if kind == "enum":
        return _enum(field.enum_type, value, path)
    if kind in INTEGERS:
        return _integer(kind, value, path)
    if kind in ("float", "double"):
        return _float(kind, value, path)
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong(path, value, "true or false", "write true or false, without quotes")
        return value
    return _text(value, path)


def _enum(enum: Any, value: Any, path: str) -> int:
    names = [v.name for v in enum.values]
    if not isinstance(value, str):
        raise wrong(path, value, "one of " + ", ".join(names))
    if value not in names:
        raise SpecError(f"{path} is {value!r}{nearest(value, names)}", expected="one of " + ", ".join(names))
    return int(enum.values_by_name[value].number)


def _integer(kind: str, value: Any, path: str) -> int:
    low, high = INTEGERS[kind]
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        quoted = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+", value.strip())
        raise wrong(path, value, "an integer", f"write it without quotes: {value.strip()}" if quoted else "")
    if not low <= value <= high:
        raise SpecError(f"{path} is {int(value)}", expected=f"an integer from {low} to {high} ({kind})")
    return int(value)


def _float(kind: str, value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(path, value, "a number", "write it as a number, without quotes" if isinstance(value, str) else "")
    try:
        struct.pack("<f" if kind == "float" else "<d", value)
    except (OverflowError, struct.error) as error:
        raise SpecError(f"{path} is {value}", expected=f"a number that a {kind} can hold") from error
    return float(value)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        plain = isinstance(value, (int, float))
        raise wrong(path, value, "text", f'put it in quotes: "{written(value)}"' if plain else "")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SpecError(
            f"{path} is {value!r}, which is not valid Unicode", expected="text that UTF-8 can hold"
        ) from error
    return value


def written(value: str | int | float) -> str:
    """A plain scalar as YAML writes it; a number that remembers its text (``24.10``) keeps it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(getattr(value, "text", repr(value)))


def wrong(path: str, value: Any, expected: str, mend: str = "") -> SpecError:
    """The error of a value of the wrong type."""
    if isinstance(value, bool):
        found = f"the boolean {written(value)}"
    elif isinstance(value, (int, float)):
        found = f"the number {written(value)}"
    elif isinstance(value, str):
        found = f"the text {value!r}"
    elif isinstance(value, Mapping):
        found = "a mapping"
    else:
        found = {type(None): "null", list: "a list", tuple: "a list"}.get(type(value), f"a {type(value).__name__}")
    return SpecError(f"{path} is {found}", expected=expected, mend=mend)
