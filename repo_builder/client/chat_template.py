"""Messages to a prompt by a model's chat template, as transformers' ``apply_chat_template`` renders it.

Templates are untrusted: they run in Jinja's immutable sandbox and see nothing but JSON values. This file stands alone
(the standard library, and jinja2 when it renders), because the served preprocessing model carries a copy of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any


class ChatTemplateError(ValueError):
    """The messages are not what a template takes, or the template is wrong or refused them; ``str`` says which."""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, Any] | None = None,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt of a conversation, up to where the assistant's answer begins.

    Args:
        template: Jinja source (``chat_template`` of tokenizer_config.json, or chat_template.jinja).
        messages: ``{"role": ..., "content": ...}`` in order.
        special_tokens: names that the template may use: ``bos_token``, ``eos_token``, ...
        add_generation_prompt: whether the header of the assistant's turn follows the last message.
        variables: what else the template takes (``tools``, ``enable_thinking``, ...).

    Raises:
        ChatTemplateError: see there.
    """
    _check(messages)
    values = {"tools": None, "documents": None, **(special_tokens or {}), **variables}
    values |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
    compiled = _compiled(template)
    try:
        return str(compiled.render(**values))
    except Exception as error:  # a template may run into any error of Python's
        raise ChatTemplateError(f"the chat template refused the messages: {_told(error)}") from error


def parse(text: str) -> list[dict[str, Any]]:
    """Messages from JSON.

    Raises:
        ChatTemplateError: it is not a JSON list of messages.
    """
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatTemplateError(f"the messages are not JSON: {_told(error)}") from error
    _check(messages)
    return list(messages)


def without_bos(prompt: str, bos_text: str | None) -> str:
    """``prompt`` without the one BOS at its start, for a server that puts one there itself."""
    return prompt.removeprefix(bos_text) if bos_text else prompt


def _check(messages: Any) -> None:
    expected = 'expected a list of {"role": ..., "content": ...}'
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise ChatTemplateError(f"the messages are a {type(messages).__name__}, {expected}")
    if not messages:
        raise ChatTemplateError("there are no messages, expected one or more")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ChatTemplateError(f"message {index} is a {type(message).__name__}, {expected}")
        if not isinstance(message.get("role"), str):
            raise ChatTemplateError(f"message {index} has no role, {expected}")
        content = message.get("content")
        if not isinstance(content, (str, list)) and not (content is None and message.get("tool_calls")):
            raise ChatTemplateError(f"message {index} ({message['role']}) has no content, {expected}")


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}...{% endgeneration %}`` marks text to train on; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise ChatTemplateError(f"the chat template is not Jinja: {_told(error)}") from error


def _json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Without the escapes for HTML that Jinja's own filter puts in."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _told(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
