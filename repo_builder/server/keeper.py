"""Launching a server under its keeper, and waiting until it answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from repo_builder.errors import PortInUseError, ServerStartError
from repo_builder.server import logs
from repo_builder.server.running import Ports, RunningServer

_POLL_SECONDS = 0.1


def launch(
    command: Sequence[str],
    ports: Ports,
    *,
    log_path: Path | None,
    grace: float,
    shared_memory: str = "",
    environment: Mapping[str, str] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> RunningServer:
    """Start ``command`` under a keeper process that ends it when this process ends. Waits for nothing.

    Args:
        command: the server's command line.
        ports: where it will listen.
        log_path: where its output goes; None for a temporary file that is removed when the server stops.
        grace: seconds between SIGTERM and SIGKILL.
        shared_memory: prefix of the names in ``/dev/shm`` that the keeper removes at the end.
        environment: the server's environment variables (default: ours).
        on_stop: called once when the server has been stopped.
    """
    log = log_path or _temporary_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).with_name("supervisor.py"))
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-I", script, str(os.getpid()), shared_memory, str(grace), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline() or 0)
    return RunningServer(
        ports, log, pid, process, grace=grace, temporary_log=log_path is None, on_stop=on_stop or (lambda: None)
    )


def await_ready(server: RunningServer, timeout: float, *, strict: bool = True) -> None:
    """Wait until the server says over HTTP that it is ready (live, where not ``strict``); it is stopped on failure.

    Raises:
        PortInUseError: it could not listen.
        ServerStartError: it died, a model did not load or the time ran out. The log stays where it is.
    """
    try:
        _await(server, timeout, "/v2/health/ready" if strict else "/v2/health/live")
    except BaseException as error:
        server.temporary_log = server.temporary_log and not isinstance(error, ServerStartError)
        server.stop()
        raise


def version(http_port: int) -> str:
    """The version that the server says it has (``2.51.0``); empty where it does not answer."""
    body = _get(http_port, "/v2")
    return str(json.loads(body)["version"]) if body else ""


def _await(server: RunningServer, timeout: float, path: str) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not server.alive():
            text = logs.errors(server.log())
            kind = PortInUseError if logs.port_in_use(text) else ServerStartError
            raise kind(
                f"the server ended while starting; its log says:\n{logs.indent(text)}",
                expected="every model of the repository loads",
                mend=f"mend what the log names; the whole log: {server.log_path}",
                stage="serve",
            )
        if _get(server.ports.http, path) is not None:
            return
        time.sleep(_POLL_SECONDS)
    raise ServerStartError(
        f"the server was not ready after {timeout:g} s; its log says:\n{logs.indent(logs.errors(server.log()))}",
        expected="every model of the repository loads in time",
        mend=f"give it a longer timeout, or mend what the log names; the whole log: {server.log_path}",
        stage="serve",
    )


def _get(http_port: int, path: str) -> bytes | None:
    """The body of a GET on 127.0.0.1 without any proxy; None where there is no answer with status 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with (
        contextlib.suppress(urllib.error.URLError, OSError),
        opener.open(f"http://127.0.0.1:{http_port}{path}", timeout=5) as reply,
    ):
        return bytes(reply.read())
    return None


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="tritonserver-", suffix=".log")
    os.close(handle)
    return Path(name)
