"""A server that runs: where it listens, what it is made of, how it stops."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from repo_builder.errors import ServerUnavailableError
from repo_builder.server import logs


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
        temporary_log: the log is removed when the server stops.
        pid: process id of ``tritonserver`` (of ``docker run`` for a container).
        versions: ``tritonserver`` as the server says it, and of Python and the frameworks those that serve.
    """

    def __init__(
        self,
        ports: Ports,
        log_path: Path,
        pid: int,
        keeper: subprocess.Popen[bytes],
        *,
        grace: float,
        temporary_log: bool,
        on_stop: Callable[[], None],
    ) -> None:
        self.ports, self.log_path, self.pid, self.temporary_log = ports, log_path, pid, temporary_log
        self.url = f"127.0.0.1:{ports.grpc}"
        self.versions: dict[str, str] = {}
        self._keeper, self._grace, self._on_stop, self._stopped = keeper, grace, [on_stop], False

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._keeper.poll() is None

    def afterwards(self, do: Callable[[], None]) -> None:
        """Call this once the server has stopped."""
        self._on_stop.append(do)

    def wait(self) -> None:
        """Return when the server ends as it was told to.

        Raises:
            ServerUnavailableError: it ended by itself; with the last lines of its log.
        """
        if self._keeper.wait() and not self._stopped:
            raise ServerUnavailableError(
                f"the server ended by itself; its log says:\n{logs.indent(self.log_tail(12))}",
                expected="a server that runs until it is stopped",
                mend=f"mend what the log names, then start it again; the whole log: {self.log_path}",
                stage="serve",
            )

    def stop(self) -> None:
        """SIGTERM, wait, then SIGKILL for all of its processes. Calling it again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._keeper.send_signal(signal.SIGTERM)
        try:
            self._keeper.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            for group in (self.pid, self._keeper.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._keeper.wait()
        for do in self._on_stop:
            do()
        if self.temporary_log:
            self.log_path.unlink(missing_ok=True)

    def log(self) -> str:
        """The whole log; empty once a temporary log was removed."""
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
