"""The only user of Jinja: prints a ModelConfig as ``config.pbtxt``, and the package's other templates.

Templates are strict: a name without a value is an error, never a hole in the output.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from repo_builder.errors import RepositoryError, TemplateError
from repo_builder.model_config.fields import KINDS, is_map
from repo_builder.model_config.text import parse

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

TEMPLATES = Path(__file__).parent / "templates"

FIRST = ("name", "platform", "backend", "runtime", "max_batch_size", "input", "output")
"""Fields that lead a config; the others follow in the order of ``model_config.proto``."""

ALWAYS = frozenset(
    {
        "inference.ModelConfig.max_batch_size",
        "inference.BatchInput.kind",
        "inference.BatchOutput.kind",
        "inference.ModelSequenceBatching.Control.kind",
    }
)
"""Fields that are printed even when they have their default, because that default says something."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
# Control characters, line separators and direction marks, which a reader or an editor would not show as they are.
_ESCAPED = re.compile('[\x00-\x1f"\\\\\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]')

_UNSHOWN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def render_config(config: ModelConfig) -> str:
    """The text of ``config.pbtxt``: the same for the same message, and parsed back to compare.

    Raises:
        TemplateError: the text does not parse back to the same message.
    """
    text = render("config.pbtxt.j2", config=config)
    try:
        back = parse(text, f"the rendered config of '{config.name}'")
    except RepositoryError as error:
        raise TemplateError(error.found, expected="text that parses back", mend=_BUG) from error
    if not _equal(back, config):
        raise TemplateError(
            f"the rendered config of '{config.name}' parses back to another message",
            expected="the same message",
            mend=_BUG,
        )
    return text


_BUG = "this is a fault of the template or of a field that this version does not know; please report it with the config"


def render(template: str, **values: Any) -> str:
    """A template of the package's ``templates`` folder, filled.

    Raises:
        TemplateError: there is no such template, or it uses a name that ``values`` lacks.
    """
    try:
        return _environment().get_template(template).render(values)
    except jinja2.TemplateNotFound as error:
        known = ", ".join(sorted(_environment().list_templates(extensions=["j2"])))
        raise TemplateError(f"there is no template {template!r}", expected=f"one of {known}") from error
    except jinja2.UndefinedError as error:
        raise TemplateError(f"{template}: {error.message}", expected="a value for every name") from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{template}, line {error.lineno}: {error.message}", expected="a Jinja template") from error


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(fields=set_fields, literal=literal, shell=shlex.quote, yaml=yaml_string)
    environment.tests.update(short=is_short, filled=lambda message: any(set_fields(message)))
    return environment


@dataclass(frozen=True)
class SetField:
    """A field to print. ``kind`` is ``scalar``, ``scalars``, ``message`` or ``messages``."""

    name: str
    kind: str
    value: Any
    descriptor: Any


def set_fields(message: Any) -> Iterator[SetField]:
    """The fields of a message that are to be printed, in order; a map gives one message field per key, sorted.

    Those are the fields that are set, key and value of a map entry, and ``ALWAYS``.
    """
    descriptor = message.DESCRIPTOR
    entry = descriptor.GetOptions().map_entry
    present = {field.name for field, _ in message.ListFields()}
    order = list(descriptor.fields)
    if descriptor.full_name == "inference.ModelConfig":
        order.sort(key=lambda field: FIRST.index(field.name) if field.name in FIRST else len(FIRST))
    for field in order:
        if not (entry or field.name in present or field.full_name in ALWAYS):
            continue
        value = getattr(message, field.name)
        if is_map(field):
            for one in _entries(field, value):
                yield SetField(field.name, "message", one, field)
        else:
            kind = "scalar" if field.message_type is None else "message"
            yield SetField(field.name, f"{kind}s" if field.is_repeated else kind, value, field)


def _entries(field: Any, values: Any) -> Iterator[Any]:
    for key in sorted(values):
        yield field.message_type._concrete_class(key=key, value=values[key])


def is_short(message: Any) -> bool:
    """Whether a message stands on one line: at most one field, or a map entry; and all within are short themselves."""
    fields = list(set_fields(message))
    few = len(fields) <= 1 or message.DESCRIPTOR.GetOptions().map_entry
    return few and all(
        field.kind in ("scalar", "scalars") or (field.kind == "message" and is_short(field.value)) for field in fields
    )


def literal(value: Any, field: SetField) -> str:
    """A scalar in text format, by the type of its field."""
    if isinstance(value, bytes):
        return _quoted_bytes(value)
    return _LITERALS[KINDS[field.descriptor.cpp_type]](value, field.descriptor)


def yaml_string(value: str) -> str:
    """A double-quoted YAML string, whatever is in it; every reader of YAML 1.1 and 1.2 gives the same text back."""
    return _UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _string(value: str, _: Any) -> str:
    def escape(match: re.Match[str]) -> str:
        return _ESCAPES.get(match[0]) or "".join(f"\\{byte:03o}" for byte in match[0].encode())

    return f'"{_ESCAPED.sub(escape, value)}"'


def _quoted_bytes(value: bytes) -> str:
    shown = (chr(b) if 0x20 <= b < 0x7F and chr(b) not in _ESCAPES else f"\\{b:03o}" for b in value)
    return f'"{"".join(shown)}"'


def _enum(value: int, field: Any) -> str:
    """The name; the number where this version of the message has no name for it."""
    known = field.enum_type.values_by_number.get(value)
    return str(known.name) if known else str(value)


_LITERALS: dict[str, Callable[[Any, Any], str]] = {
    **dict.fromkeys(("int32", "int64", "uint32", "uint64"), lambda value, _: str(value)),
    "double": lambda value, _: repr(value),
    "float": lambda value, _: str(np.float32(value)),
    "bool": lambda value, _: str(value).lower(),
    "enum": _enum,
    "string": _string,
}


def _equal(left: Any, right: Any) -> bool:
    """Equality in which NaN equals NaN."""
    if left == right:
        return True
    from google.protobuf import text_format

    return bool(text_format.MessageToString(left) == text_format.MessageToString(right))
