"""YAML without its traps: repeated keys are errors, ``on`` is a string, ``1e-5`` a number, ``24.10`` keeps its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from repo_builder.errors import SourceMissingError, SpecError

_LARGEST = 1 << 20


class Number(float):
    """A float that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> Number:
        value = super().__new__(cls, text.replace("_", ""))
        value.text = text
        return value

    def __deepcopy__(self, memo: Any) -> Number:
        return self


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema on PyYAML's parser, without aliases (they can grow without bound) and tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken here", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"tags ({event.tag}) are not taken here", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = True) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} is not a string", problem_mark=key.start_mark)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} stands here twice", problem_mark=key.start_mark)
            seen[name] = key
        return dict(super().construct_mapping(node, deep=deep))


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _float(loader: _Loader, node: Any) -> float:
    text = loader.construct_scalar(node)
    lowered = text.lower().replace(".inf", "inf").replace(".nan", "nan")
    return float(lowered) if "n" in lowered else Number(text)


def _int(loader: _Loader, node: Any) -> int:
    text = loader.construct_scalar(node)
    try:
        return int(text, 0) if text.startswith(("0x", "0o")) else int(text, 10)
    except ValueError as error:
        raise yaml.MarkedYAMLError(
            problem=f"{text[:20]}... has too many digits", problem_mark=node.start_mark
        ) from error


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


@dataclass(frozen=True)
class Document:
    """A parsed file: its data, and where each key stands."""

    path: Path
    data: Any
    root: Any

    def line(self, location: Sequence[Any]) -> int | None:
        """The 1-based line of the deepest part of ``location`` that the file has."""
        node, line = self.root, None
        for part in location:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line


def read(path: Path) -> Document:
    """Parse one YAML file.

    Raises:
        SourceMissingError: there is no such file.
        SpecError: it is not UTF-8, empty, too large, or not YAML; with line and column.
    """
    if not path.is_file():
        raise SourceMissingError(f"there is no file {path}", expected="a YAML spec", stage="spec")
    raw = path.read_bytes()
    if len(raw) > _LARGEST:
        raise SpecError(f"{path} has {len(raw):,} bytes", expected="a YAML spec of at most 1 MiB", stage="spec")
    try:
        loader = _Loader(raw.decode("utf-8"))
        try:
            root = loader.get_single_node()
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text ({error})", expected="a YAML spec", stage="spec") from error
    except RecursionError as error:
        raise SpecError(f"{path} is nested too deeply", expected="a YAML spec", stage="spec") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise SpecError(f"{at}: {error.problem}", mend="correct that line", stage="spec") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: {error}", mend="correct the file", stage="spec") from error
    if data is None:
        raise SpecError(f"{path} is empty", expected="a spec with `models:`", stage="spec")
    return Document(path, data, root)
