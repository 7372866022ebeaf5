"""A release's own container image, run by Docker on this machine."""

from __future__ import annotations

import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from repo_builder.errors import ServerStartError, SourceMissingError, ToolchainError
from repo_builder.server import keeper, needs, ports
from repo_builder.server.running import Ports, RunningServer
from repo_builder.toolchain import Progress

REGISTRY = "nvcr.io/nvidia/tritonserver"
# Inside the container tritonserver listens on its default ports.
_INSIDE = {"grpc": 8001, "http": 8000, "metrics": 8002}
_MOUNTED = "/models"
_GRACE_SECONDS = 30.0


def image(release: str, flavour: str = "py3") -> str:
    """The image of a release and a flavour: ``nvcr.io/nvidia/tritonserver:24.10-py3``."""
    return f"{REGISTRY}:{release}-{flavour}"


def command(
    repository: Path,
    release: str,
    flavour: str = "py3",
    *,
    where: Ports | None = None,
    name: str = "",
    models: Sequence[str] = (),
    gpus: bool | None = None,
    extra_args: Sequence[str] = (),
) -> list[str]:
    """The exact ``docker run`` that serves a repository; ``shlex.join`` prints it.

    Args:
        repository: the model repository; it is mounted read-only.
        release, flavour: see ``image``.
        where: ports on 127.0.0.1 (default: Triton's own, 8001, 8000 and 8002).
        name: the container's name; Docker invents one where it is empty.
        models: load only these, under explicit model control.
        gpus: give the container all GPUs (default: where this machine has an NVIDIA driver).
        extra_args: more arguments for ``tritonserver``, after those that its plans need (``needs.backend_options``).

    Raises:
        RepositoryError: see ``needs.backend_options``.
    """
    where = where or Ports(_INSIDE["grpc"], _INSIDE["http"], _INSIDE["metrics"])
    if gpus is None:
        gpus = Path("/dev/nvidiactl").exists()
    arguments = ["docker", "run", "--rm", "--shm-size=1g", *([f"--name={name}"] if name else [])]
    arguments += ["--gpus=all"] if gpus else []
    for service, inside in _INSIDE.items():
        arguments.append(f"--publish=127.0.0.1:{getattr(where, service)}:{inside}")
    # --mount, unlike --volume, takes a path with a colon and refuses a source that is not there; its value is CSV.
    arguments.append(f"--mount=type=bind,{_csv(f'source={repository.absolute()}')},target={_MOUNTED},readonly")
    arguments += [image(release, flavour), "tritonserver", f"--model-repository={_MOUNTED}"]
    if models:
        arguments += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in models)]
    return [*arguments, *needs.backend_options(repository, models, mounted=_MOUNTED), *extra_args]


def start(
    repository: Path,
    release: str,
    flavour: str = "py3",
    *,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    models: Sequence[str] = (),
    log_path: Path | None = None,
    timeout: float = 600,
    strict: bool = True,
    gpus: bool | None = None,
    extra_args: Sequence[str] = (),
    progress: Progress | None = None,
) -> RunningServer:
    """Run the image on a repository and wait until it is ready; the container is removed when the server stops.

    The image is pulled first where it is not here. Arguments and errors as of ``embedded.start``.

    Raises:
        ToolchainError: Docker is not here, does not answer, or cannot pull the image; names the command to run.
    """
    repository = repository.absolute()
    if not repository.is_dir():
        raise SourceMissingError(f"there is no model repository {repository}", stage="serve")
    tell = progress or (lambda _line: None)
    name = f"repo-builder-{secrets.token_hex(6)}"
    where = ports.choose(grpc_port, http_port, metrics_port)
    options = [*extra_args] if strict else ["--exit-on-error=false", *extra_args]
    line = command(repository, release, flavour, where=where, name=name, models=models, gpus=gpus, extra_args=options)
    _check(line, image(release, flavour), tell)
    tell(f"running {shlex.join(line)}")
    server = keeper.launch(line, where, log_path=log_path, grace=_GRACE_SECONDS, on_stop=lambda: _remove(name))
    keeper.await_ready(server, timeout, strict=strict)
    server.versions["tritonserver"] = keeper.version(where.http)
    server.versions["image"] = image(release, flavour)
    return server


def _check(line: Sequence[str], wanted: str, tell: Progress) -> None:
    mend = f"run it where Docker is, then name that server's address instead of docker:\n    {shlex.join(line)}"
    if shutil.which("docker") is None:
        raise ToolchainError("there is no docker on the PATH", expected="Docker, to run the image", mend=mend)
    if error := _docker("version"):
        raise ToolchainError(f"Docker does not answer: {error}", expected="a running Docker daemon", mend=mend)
    if _docker("image", "inspect", wanted):
        tell(f"pulling {wanted}")
        if error := _docker("pull", "--quiet", wanted):
            raise ToolchainError(f"Docker cannot pull {wanted}: {error}", expected="a reachable registry", mend=mend)


def _docker(*arguments: str) -> str:
    """Run a docker command; its last line of error where it failed, else an empty string."""
    try:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ServerStartError(f"docker cannot be run: {error}", stage="serve") from error
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""


def _remove(name: str) -> None:
    _docker("rm", "--force", name)


def _csv(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if "," in field or '"' in field else field
