"""The real tritonserver of the nvidia-pytriton wheel, in an environment of its own, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repo_builder import toolchain
from repo_builder.errors import PortInUseError, ServerStartError, SourceMissingError
from repo_builder.server import backend_directory, logs, needs, ports
from repo_builder.server.running import Ports, RunningServer
from repo_builder.toolchain import Progress

# nvidia-pytriton 0.7.0 carries tritonserver 2.51.0 (release 24.10); its stubs need numpy 1. Neither the server nor the
# stubs use the wheel's own Python dependencies, nor does ``import onnxruntime`` use those of its wheel.
SERVER = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")
ONNXRUNTIME = "1.23.2"
TORCH = "2.13.0"
_LOWEST, _HIGHEST = (3, 10), (3, 12)
_GRACE_SECONDS = 8.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Environment:
    """An environment that can run the server.

    Attributes:
        folder: the virtual environment.
        python: its version, ``3.11.7``.
        backends: the backend directory.
    """

    folder: Path
    python: str
    backends: Path


def prepare(needed: frozenset[str], *, onnxruntime: str | None = None, progress: Progress | None = None) -> Environment:
    """The server's environment for the backends ``needed``; made when it is not there yet.

    Raises:
        ToolchainError: this Python or this system cannot carry it, or pip failed.
    """
    python = toolchain.this_interpreter()
    toolchain.check_version(
        python, _LOWEST, _HIGHEST, "the server's Python backend needs numpy 1, which has no wheels for it"
    )
    toolchain.check_glibc(python, (2, 35), "the tritonserver of the nvidia-pytriton wheel")
    toolchain.check_venv(python)
    library = toolchain.libpython(python)
    alone = list(SERVER)
    if "onnxruntime" in needed:
        alone.append(f"onnxruntime=={onnxruntime or ONNXRUNTIME}")
    with_dependencies = [f"torch=={TORCH}"] if "pytorch" in needed else []
    executable = toolchain.ensure("server", with_dependencies, alone=alone, interpreter=python, progress=progress)
    folder = executable.parent.parent
    backends = backend_directory.make(folder, python.short, library)
    return Environment(folder, ".".join(map(str, python.version)), backends)


def start(
    repository: Path,
    *,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    models: Sequence[str] = (),
    onnxruntime: str | None = None,
    log_path: Path | None = None,
    timeout: float = 300,
    strict: bool = True,
    extra_args: Sequence[str] = (),
    progress: Progress | None = None,
) -> RunningServer:
    """Start the embedded server on a repository and wait until it is ready. It listens on 127.0.0.1 alone.

    Args:
        repository: the model repository.
        grpc_port, http_port, metrics_port: 0 for any free port.
        models: load only these (and what their ensembles need), under explicit model control.
        onnxruntime: version of ONNX Runtime that serves (default: ``ONNXRUNTIME``).
        log_path: where the server's log goes; by default a temporary file that is removed when the server stops.
        timeout: seconds until it must be ready; the making of the environment is not counted.
        strict: a model that does not load is an error; otherwise the server runs without it.
        extra_args: more arguments for ``tritonserver``.
        progress: called with one line per step.

    Raises:
        SourceMissingError: there is no such repository.
        ToolchainError: the environment could not be made.
        PortInUseError: a wanted port is taken.
        ServerStartError: the server died, a model did not load, or the time ran out; with its own log lines.
    """
    repository = repository.absolute()
    if not repository.is_dir():
        raise SourceMissingError(f"there is no model repository {repository}", stage="serve")
    wanted = (grpc_port, http_port, metrics_port)
    ports.choose(*wanted)
    environment = prepare(needs.backends(repository, models), onnxruntime=onnxruntime, progress=progress)
    if progress:
        progress(f"starting tritonserver on {repository}")
    options = [f"--model-repository={repository}", f"--exit-on-error={str(strict).lower()}"]
    if models:
        options.append("--model-control-mode=explicit")
        options += [f"--load-model={name}" for name in models]
    options += extra_args
    attempts = 1 if all(wanted) else 3
    while True:
        attempts -= 1
        try:
            return _launch(environment, options, ports.choose(*wanted), log_path, timeout, strict)
        except PortInUseError:
            if not attempts:
                raise


def _launch(
    environment: Environment, options: Sequence[str], where: Ports, log_path: Path | None, timeout: float, strict: bool
) -> RunningServer:
    log = log_path or _temporary_log()
    prefix = f"repo_builder_{os.getpid()}_{secrets.token_hex(4)}_"
    command = [
        str(backend_directory.wheel(environment.folder) / "bin" / "tritonserver"),
        f"--backend-directory={environment.backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--backend-config=python,stub-timeout-seconds=240",
        "--exit-timeout-secs=5",
        *(f"--{name}-address=127.0.0.1" for name in ("grpc", "http", "metrics")),
        f"--grpc-port={where.grpc}",
        f"--http-port={where.http}",
        f"--metrics-port={where.metrics}",
        *options,
    ]
    keeper = [str(environment.folder / "bin" / "python"), "-I", str(Path(__file__).with_name("supervisor.py"))]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*keeper, str(os.getpid()), prefix, str(_GRACE_SECONDS), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=out,
            env=_variables(environment),
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline() or 0)
    server = RunningServer(
        where,
        log,
        pid,
        process,
        grace=_GRACE_SECONDS,
        on_stop=None if log_path else lambda: log.unlink(missing_ok=True),
    )
    try:
        await_ready(server, timeout, strict=strict)
        server.versions = _versions(server, environment)
    except BaseException as error:
        if isinstance(error, ServerStartError):
            server.keep_log()
        server.stop()
        raise
    return server


def await_ready(server: RunningServer, timeout: float, *, strict: bool = True) -> None:
    """Wait until the server answers over HTTP that it is ready (live, where not ``strict``).

    Raises:
        PortInUseError: it could not listen.
        ServerStartError: it died or the time ran out.
    """
    path = "/v2/health/ready" if strict else "/v2/health/live"
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
        if answer(server.ports.http, path) is not None:
            return
        time.sleep(_POLL_SECONDS)
    raise ServerStartError(
        f"the server was not ready after {timeout:g} s; its log says:\n{logs.indent(logs.errors(server.log()))}",
        expected="every model of the repository loads in time",
        mend=f"give it a longer timeout, or mend what the log names; the whole log: {server.log_path}",
        stage="serve",
    )


def answer(http_port: int, path: str) -> bytes | None:
    """The body of a GET of the server's HTTP service; None where it does not answer, or not with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with (
        contextlib.suppress(urllib.error.URLError, OSError),
        opener.open(f"http://127.0.0.1:{http_port}{path}", timeout=5) as reply,
    ):
        return bytes(reply.read())
    return None


def server_version(http_port: int) -> str:
    """The version that the server says it has (``2.51.0``); empty where it does not answer."""
    body = answer(http_port, "/v2")
    return str(json.loads(body)["version"]) if body else ""


def _versions(server: RunningServer, environment: Environment) -> dict[str, str]:
    found = {"tritonserver": server_version(server.ports.http), "python": environment.python}
    for distribution in ("onnxruntime", "torch"):
        if version := backend_directory.installed(environment.folder, distribution):
            found[distribution] = version
    return found


def _variables(environment: Environment) -> dict[str, str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    variables["PATH"] = f"{environment.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    libraries = (backend_directory.libraries(environment.folder), environment.backends / "lib")
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    return variables


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="tritonserver-", suffix=".log")
    os.close(handle)
    return Path(name)
