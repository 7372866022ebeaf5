"""A server that runs: where it listens, what it is made of, how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    grpc: int
    http: int
    metrics: int


class RunningServer:
    """A started server; a context manager that stops it.

    Attributes:
        ports: where it listens on 127.0.0.1.
        url: ``127.0.0.1:PORT`` of gRPC.
        log_path: everything that the server wrote.
        pid: process id of ``tritonserver`` (of ``docker run`` for a container).
        versions: ``tritonserver`` as the server says it, ``python``, and of the frameworks those that serve.
    """

    def __init__(
        self,
        ports: Ports,
        log_path: Path,
        pid: int,
        keeper: subprocess.Popen[bytes],
        *,
        grace: float,
        versions: Mapping[str, str] | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        self.ports, self.log_path, self.pid = ports, log_path, pid
        self.url = f"127.0.0.1:{ports.grpc}"
        self.versions = dict(versions or {})
        self._keeper, self._grace, self._on_stop = keeper, grace, on_stop

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._keeper.poll() is None

    def stop(self) -> None:
        """SIGTERM, wait, then SIGKILL for all of its processes. Calling it again does nothing."""
        if self.alive():
            self._keeper.send_signal(signal.SIGTERM)
            try:
                self._keeper.wait(self._grace + 10)
            except subprocess.TimeoutExpired:
                os.killpg(self._keeper.pid, signal.SIGKILL)
                self._keeper.wait()
        if self._on_stop:
            on_stop, self._on_stop = self._on_stop, None
            on_stop()

    def keep_log(self) -> None:
        """Leave the log where it is when the server stops."""
        self._on_stop = None

    def log(self) -> str:
        """The whole log."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
