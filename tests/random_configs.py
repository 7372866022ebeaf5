"""Seeded random ModelConfig messages over every field of the descriptor, with the values that break printers."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

from repo_builder.model_config.fields import INTEGERS, KINDS, is_map, message_class

STRINGS = (
    "",
    " ",
    "a",
    "model.onnx",
    "${hole}",
    "{{ hole }}",
    "{% raw %}",
    "# no comment",
    "a\nb\r\n\tc",
    '"',
    "'",
    "\\",
    "\\n",
    '\\"',
    "a: 1 }",
    "\0",
    "\x01\x1f\x7f",
    "\x800\u0085",
    "\u00e4\u00f6\u00fc",
    "\u6587\u5b57",
    "\U0001f680",
    "e\u0301",
    "\u2028\u2029",
    "\ufeff",
    "\u202eabc\u202c",
    "\u00a0",
    "\uffff",
    "\U0010ffff",
    "\x017",
    "x" * 300,
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    0.1,
    1 / 3,
    1e-5,
    1e16,
    123456789.0,
    1e-45,
    3.4028234663852886e38,
    float("inf"),
    float("-inf"),
)
DOUBLES = (*FLOATS, 5e-324, 1.7976931348623157e308, 1e22)


class RandomConfigs:
    """Makes messages; ``exercised`` is the set of the full names of the fields that were set so far.

    Args:
        seed: the same seed gives the same messages.
        without: field names (``model_metrics``) that are left out.
    """

    def __init__(self, seed: int, without: frozenset[str] = frozenset()) -> None:
        self.rng = random.Random(seed)
        self.without = without
        self.exercised: set[str] = set()

    def message(self) -> Any:
        message = message_class()()
        self._fill(message)
        return message

    def _fill(self, message: Any) -> None:
        chosen = {oneof.name: self.rng.choice(oneof.fields).name for oneof in message.DESCRIPTOR.oneofs}
        for field in message.DESCRIPTOR.fields:
            other = field.containing_oneof is not None and chosen[field.containing_oneof.name] != field.name
            if other or field.name in self.without or self.rng.random() < 0.5:
                continue
            self.exercised.add(field.full_name)
            self._set(message, field)

    def _set(self, message: Any, field: Any) -> None:
        target = getattr(message, field.name)
        if is_map(field):
            self._fill_map(target, field)
        elif field.is_repeated:
            for _ in range(self.rng.randint(1, 3)):
                if field.message_type is None:
                    target.append(self._scalar(field))
                else:
                    self._fill(target.add())
        elif field.message_type is not None:
            target.SetInParent()
            self._fill(target)
        else:
            setattr(message, field.name, self._scalar(field))

    def _fill_map(self, target: Any, field: Any) -> None:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        self.exercised.update((key.full_name, value.full_name))
        for _ in range(self.rng.randint(1, 3)):
            if value.message_type is not None:
                self._fill(target[self._scalar(key)])
            else:
                target[self._scalar(key)] = self._scalar(value)

    def _scalar(self, field: Any) -> Any:
        kind = KINDS[field.cpp_type]
        if kind == "enum":
            return self.rng.choice(field.enum_type.values).number
        if kind in INTEGERS:
            low, high = INTEGERS[kind]
            return self.rng.choice((low, high, 0, 1, self.rng.randint(low, high)))
        if kind == "bool":
            return self.rng.random() < 0.5
        if kind == "float":
            return self.rng.choice((*FLOATS, float("nan"), self._finite("<f")))
        if kind == "double":
            return self.rng.choice((*DOUBLES, float("nan"), self._finite("<d")))
        return self.rng.choice((*STRINGS, "".join(chr(self.rng.randrange(0xD800)) for _ in range(8))))

    def _finite(self, layout: str) -> float:
        while True:
            value = struct.unpack(layout, self.rng.randbytes(struct.calcsize(layout)))[0]
            if value == value:
                return float(value)


def all_fields() -> set[str]:
    """Full names of all fields that a ModelConfig can reach, keys and values of maps included."""

    def walk(descriptor: Any, seen: set[str]) -> Iterator[str]:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            yield field.full_name
            if field.message_type is not None:
                yield from walk(field.message_type, seen)

    return set(walk(message_class().DESCRIPTOR, set()))


def as_fields(message: Any) -> dict[str, Any]:
    """The plain fields that ``model_config.build`` makes this message of."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: Any, value: Any) -> Any:
    if is_map(field):
        of_value = field.message_type.fields_by_name["value"]
        return {str(k): _plain_one(of_value, value[k]) for k in value}
    return [_plain_one(field, v) for v in value] if field.is_repeated else _plain_one(field, value)


def _plain_one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return as_fields(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
