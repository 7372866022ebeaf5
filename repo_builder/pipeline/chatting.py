"""A conversation with a language model: served for the occasion, or by a server that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from repo_builder import client
from repo_builder.client.generation import LAYOUTS
from repo_builder.errors import RepositoryError, SourceMissingError, nearest
from repo_builder.pipeline import calls, serving


@dataclass(frozen=True)
class Answer:
    """An answer that is being read."""

    generation: client.Generation

    def figures(self) -> str:
        """Time to the first text, and tokens a second."""
        done, first = self.generation, self.generation.time_to_first_token
        ended = ", cancelled" if done.cancelled else ""
        return (
            f"{done.tokens} tokens, {done.tokens_per_second:.1f} a second"
            + (f", the first after {1000 * first:.0f} ms" if first is not None else "")
            + ended
        )

    def told(self, prompt: str) -> dict[str, Any]:
        """The whole answer as JSON values; reads it to its end."""
        text = "".join(self.generation)
        done = self.generation
        return {
            "prompt": prompt,
            "text": text,
            "tokens": done.tokens,
            "tokens_per_second": round(done.tokens_per_second, 3),
            "time_to_first_token": done.time_to_first_token,
            "finish_reason": done.finish_reason,
        }


class Session:
    """A context manager; the server of a repository ends with it.

    Attributes:
        model: its name.
        chats: whether it has a chat template.
        streams: whether its answers come in parts.
    """

    def __init__(self, held: contextlib.ExitStack, connection: client.Client, model: str) -> None:
        self._held, self._client, self.model = held, connection, model
        config = connection.config(model)
        self.chats = "chat_template" in config.parameters
        self.streams = bool(config.model_transaction_policy.decoupled)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    def ask(self, history: Sequence[Mapping[str, str]], **options: Any) -> Answer:
        """The answer to the last message, in the light of the others where the model has a chat template."""
        given = {"messages": history} if self.chats else {"prompt": history[-1]["content"]}
        return Answer(self._client.generate(self.model, stream=self.streams, timeout=600.0, **given, **options))


def open_session(where: str, model: str | None, progress: Callable[[str], None] | None = None) -> Session:
    """A session with ``model`` (default: the only one that generates text) of a repository or of ``grpc://HOST:PORT``.

    Raises:
        SourceMissingError: there is no such repository.
        RepositoryError: no such model, none that generates text, or several.
    """
    with contextlib.ExitStack() as held:
        if "://" in where or (":" in where and not Path(where).exists()):
            connection = held.enter_context(client.connect(where))
            if model is None:
                raise RepositoryError(f"{where} may have many models", expected="the name of one", mend="--model NAME")
        else:
            repository = Path(where)
            if not repository.is_dir():
                raise SourceMissingError(f"there is no folder {where}", expected="a repository, or grpc://HOST:PORT")
            found = serving.configs(repository)
            model = _chosen(repository, found, model)
            release = calls.target_of(repository)
            names = calls.with_steps(model, found)
            served = held.enter_context(serving.serve(repository, release, "embedded", names, progress))
            connection = held.enter_context(client.connect(served.url))
        connection.wait_ready(models=[model])
        session = Session(held.pop_all(), connection, model)
    return session


def _chosen(repository: Path, found: Mapping[str, Any], model: str | None) -> str:
    public = [name for name, config in found.items() if _generates(config)]
    if model is not None and model in found:
        return model
    if model is not None:
        raise RepositoryError(
            f"{repository.name} has no model {model!r}{nearest(model, public)}",
            expected="one of " + ", ".join(public or found),
        )
    if len(public) != 1:
        raise RepositoryError(
            f"{repository.name} has {len(public)} models that generate text: {', '.join(public) or 'none'}",
            expected="one",
            mend="name it with --model" if public else "build one with --task text-generation",
        )
    return public[0]


def _generates(config: Any) -> bool:
    """A public model: one that takes text and bears its chat's parameters, not the ensemble beside it."""
    inputs = {tensor.name for tensor in config.input}
    return "text_input" in inputs and bool(inputs & LAYOUTS.keys()) and config.platform != "ensemble"
