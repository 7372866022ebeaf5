"""The gRPC channel: addresses, options, retries, and errors in the user's words."""

from __future__ import annotations

import math
import random
import time
from typing import Any
from urllib.parse import urlsplit

from repo_builder.errors import (
    InferenceError,
    RepoBuilderError,
    ServerUnavailableError,
    TimeoutExceededError,
    UsageError,
)

DEFAULT_PORT = 8001
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
ALIVE_TIMEOUT_S = 2.0


def target_of(url: str) -> str:
    """``host:port`` of ``host:port``, ``host`` or ``grpc://host:port``; the default port is 8001.

    Raises:
        UsageError: another scheme, or no host.
    """
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host, port = None, 0
    if parts.scheme != "grpc" or not host or parts.path.strip("/"):
        raise UsageError(
            f"'{url}' is not a gRPC address",
            expected="host:port or grpc://host:port",
            mend="this client speaks gRPC (Triton's port 8001 by default), not HTTP (8000) or metrics (8002)",
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def channel_options(target: str) -> list[tuple[str, int]]:
    """Channel arguments.

    Messages are unlimited (gRPC refuses answers above 4 MB by default). Triton allows a ping every 300 s and drops
    clients that send more (server docs, gRPC KeepAlive); local servers are never reached through an HTTP proxy.
    """
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    host = target.rsplit(":", 1)[0].strip("[]")
    if host == "localhost" or host == "::1" or host.startswith("127."):
        options.append(("grpc.enable_http_proxy", 0))
    return options


class Budget:
    """Time and retries of one call. Only UNAVAILABLE is tried again, after growing pauses, within the timeout."""

    def __init__(self, timeout: float, retries: int) -> None:
        self.timeout, self.retries = timeout, retries
        self._end, self._failures = time.monotonic() + timeout, 0

    def remaining(self) -> float | None:
        """Seconds left, for gRPC's ``timeout``; None where there is no limit."""
        return None if math.isinf(self._end) else max(self._end - time.monotonic(), 0.0)

    def pause_after(self, error: Any) -> float | None:
        """Seconds to wait before the next try, or None where ``error`` is final."""
        if not is_unavailable(error) or self._failures >= self.retries:
            return None
        pause: float = min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)
        self._failures += 1
        return pause if time.monotonic() + pause < self._end else None


def is_unavailable(error: Any) -> bool:
    """Whether gRPC's status is UNAVAILABLE: from a connection that failed, or from the server itself.

    The error does not tell which; the client asks with ``ServerLive`` once its retries are spent.
    """
    import grpc

    return bool(error.code() == grpc.StatusCode.UNAVAILABLE)


def failure(error: Any, target: str, budget: Budget, model: str, *, alive: bool) -> RepoBuilderError:
    """The error for the user of a ``grpc.RpcError``.

    TimeoutExceededError for DEADLINE_EXCEEDED, ServerUnavailableError where no server is ``alive``, InferenceError
    with the server's own message for anything that it said.
    """
    import grpc

    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(target, budget.timeout, model)
    details = error.details() or error.code().name
    return refused(details, model) if alive else unavailable(target, details).at(model=model)


def late(target: str, timeout: float, model: str) -> TimeoutExceededError:
    return TimeoutExceededError(
        f"{target} did not answer within {timeout:g} s",
        mend="pass a longer timeout, or look at the server's queue and log",
        model=model,
    )


def refused(message: str, model: str) -> InferenceError:
    """An error in the server's own words."""
    mend = "use stream(): the model is decoupled" if "decoupled transaction policy" in message else ""
    return InferenceError(f"the server answered: {message}", mend=mend, model=model)


def unavailable(target: str, details: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"no inference server answers at {target} ({details})",
        expected="a Triton server's gRPC port (8001 by default)",
        mend="is the server running, and is this its gRPC port rather than the one for HTTP (8000) or metrics (8002)?",
    )


def closed(target: str) -> InferenceError:
    return InferenceError(f"this client of {target} is closed", mend="call connect() again")
