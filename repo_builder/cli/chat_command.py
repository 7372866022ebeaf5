"""The verb ``chat``: talk to a language model of a repository, its answers as they come."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from repo_builder.cli import printing

if TYPE_CHECKING:
    from repo_builder.pipeline.chatting import Answer

Messages = list[dict[str, str]]


def chat(
    where: Annotated[str, typer.Argument(metavar="TARGET", help="A repository, or grpc://HOST:PORT.")],
    model: Annotated[str | None, typer.Option(help="The model; default: the only one that generates text.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Ask this and leave; default: a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="The system's message in front of the conversation.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy search.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Talk to a language model; Ctrl-C ends an answer, Ctrl-D the conversation."""
    from repo_builder.pipeline import chatting

    printing.mode(as_json=as_json)
    with printing.results_apart(), printing.progress() as progress:
        session = chatting.open_session(where, model, lambda said: progress(model or where, said))
    with session:
        if not session.chats:
            printing.note(f"{session.model} has no chat template: prompts go to it as they are")
        history: Messages = [{"role": "system", "content": system}] if system else []
        while True:
            asked = prompt if prompt is not None else _asked()
            if asked is None:
                return
            history.append({"role": "user", "content": asked})
            answer = session.ask(history, max_tokens=max_tokens, temperature=temperature)
            if as_json:
                print(json.dumps({"model": session.model, **answer.told(asked)}, ensure_ascii=False))
            else:
                _shown(answer)
            if prompt is not None:
                return
            history.append({"role": "assistant", "content": answer.generation.text})


def _asked() -> str | None:
    """A line of the user's; None at the end of the input."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return None
        if line.strip():
            return line.rstrip("\n")


def _shown(answer: Answer) -> None:
    try:
        for piece in answer.generation:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        answer.generation.cancel()
    print(flush=True)
    printing.note(answer.figures())
