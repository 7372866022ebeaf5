"""Asking for readiness, and saying why a server or a model is not ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repo_builder.errors import TimeoutExceededError

PAUSE_S, REASON_TIMEOUT_S = 0.1, 5.0


def question(pb: Any, model: str, version: str) -> tuple[str, Any]:
    """The method and the request that ask whether the server (no model named) or a model is ready."""
    if model:
        return "ModelReady", pb.ModelReadyRequest(name=model, version=version)
    return "ServerReady", pb.ServerReadyRequest()


def not_ready(target: str, timeout: float, models: Sequence[str], index: Any) -> TimeoutExceededError:
    """The error for a server that answers but is not ready, with its own reasons from the repository index."""
    states: dict[str, str] = {}
    for entry in index.models:
        if entry.state != "READY" and (not models or entry.name in models):
            states[entry.name] = f"{entry.name} is {entry.state or 'not loaded'}" + (
                f" ({entry.reason})" if entry.reason else ""
            )
    known = {entry.name for entry in index.models}
    states.update({name: f"{name} is not in the repository" for name in models if name not in known})
    return TimeoutExceededError(
        f"{target} was not ready within {timeout:g} s" + (": " + "; ".join(states.values()) if states else ""),
        expected="models that are READY: " + ", ".join(models) if models else "every model READY",
        mend="wait longer, or look at the server's log for what a model could not load",
    )
