"""ModelConfig from the text of a ``config.pbtxt``, with errors that name the place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from repo_builder.errors import RepositoryError, nearest
from repo_builder.model_config.fields import message_class

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig


def parse(text: str, origin: str = "config.pbtxt") -> ModelConfig:
    """The config of a ``config.pbtxt``.

    Raises:
        RepositoryError: the text is no ModelConfig; names ``origin``, line and column.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message_class()())
    except text_format.ParseError as error:
        raise _parse_error(text, origin, error) from error
    except UnicodeError as error:
        raise RepositoryError(
            f"{origin} is not UTF-8 text ({error})", expected="a ModelConfig in text format"
        ) from error


def _parse_error(text: str, origin: str, error: Any) -> RepositoryError:
    number, column = error.GetLine() or 1, error.GetColumn() or 1
    line = (text.split("\n") + [""] * number)[number - 1]
    message = re.sub(r"^\d+:\d+ : ", "", str(error))
    for shown in (line, ""):
        message = message.removeprefix(f"'{shown}': ")
    place = f"{origin}, line {number}, column {column}"
    if hole := re.match(r"\$(\{[^}]*\}|\w+)", line[column - 1 :]):
        return RepositoryError(
            f"{place}: {hole.group()} is an unfilled template",
            expected="a value",
            mend=f"fill the template: put a value in the place of every {hole.group()}",
        )
    return RepositoryError(
        f"{place}: {message.rstrip('.')}{_nearest_name(message)}", expected="a ModelConfig in text format"
    )


def _nearest_name(message: str) -> str:
    pool = message_class().DESCRIPTOR.file.pool
    if found := re.search(r'Message type "([\w.]+)" has no field named "(\w+)"', message):
        return nearest(found[2], [f.name for f in pool.FindMessageTypeByName(found[1]).fields])
    if found := re.search(r'Enum type "([\w.]+)" has no value named (\w+)', message):
        return nearest(found[2], [v.name for v in pool.FindEnumTypeByName(found[1]).values])
    return ""
