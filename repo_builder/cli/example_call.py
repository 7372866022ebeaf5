"""Options of ``repo-builder infer`` that make a request which a model answers: one out of its own proof."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import RepositoryError

if TYPE_CHECKING:
    from repo_builder.proof import Case

_SHORT = range(4, 100)
"""Characters of all texts of a request that is nice to read."""


def options(repository: Path, model: str, inputs: Mapping[str, str]) -> str:
    """Quoted for a shell: the shortest readable case of the proof, or a line to fill in where the inputs are arrays.

    Args:
        inputs: Triton's dtype of every input, by name.
    """
    if "BYTES" in inputs.values():
        found = [written for case in _cases(repository, model) if (written := _written(case.inputs))]
        if found:
            return min(found, key=_rank)[0]
    given = inputs or {"NAME": ""}
    return " ".join(f"--input {name}={'...' if dtype == 'BYTES' else 'FILE.npy'}" for name, dtype in given.items())


def _cases(repository: Path, model: str) -> tuple[Case, ...]:
    from repo_builder import proof
    from repo_builder.repository.layout import Layout

    try:
        return proof.load(Layout.of(repository).proof(model)).cases
    except RepositoryError:
        return ()


def _written(inputs: Mapping[str, Any]) -> tuple[str, str] | None:
    """The options and all texts; None where a command line cannot hold them."""
    parts, texts = [], []
    for name, array in inputs.items():
        values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in array.reshape(-1).tolist()]
        if array.shape[0] != 1 or any(not text.isprintable() or text.endswith(".npy") for text in values):
            return None
        if array.dtype == object:
            texts += values
        elif len(values) != 1:
            return None
        else:
            values = [values[0].lower()]  # JSON's true and false
        if list(inputs) == ["TEXT"] and not values[0].startswith("-"):
            parts.append(f"--text {shlex.quote(values[0])}")
        else:
            parts += [f"--input {shlex.quote(f'{name}={value}')}" for value in values]
    return " ".join(parts), "".join(texts) if all(text.strip() for text in texts) else ""


def _rank(written: tuple[str, str]) -> tuple[bool, bool, int]:
    """ASCII texts of a readable length first, and of those the shortest."""
    call, texts = written
    return not texts.isascii(), len(texts) not in _SHORT, len(call)
