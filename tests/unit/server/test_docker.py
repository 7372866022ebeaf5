"""Docker: the exact command, and the life of a container, with a stand-in for the docker program."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from repo_builder.errors import ServerStartError, ToolchainError
from repo_builder.server import Ports, docker, needs

# A stand-in for docker: "run" answers like tritonserver on the published HTTP port until SIGTERM.
DOCKER = """#!{python}
import http.server, os, sys
with open({calls!r}, "a", encoding="utf-8") as calls:
    print(*sys.argv[1:], file=calls)
if sys.argv[1] in {failing!r}:
    sys.exit("Error response from daemon: " + sys.argv[1] + " is not possible")
if sys.argv[1] == "run":
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{{"version": "2.99.0"}}')
    port = next(int(a.split(":")[1]) for a in sys.argv if a.endswith(":8000"))
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...] = ()) -> Path:
    """Put the stand-in first on the PATH; returns the file with its calls."""
    calls = folder / "calls"
    program = folder / "docker"
    program.write_text(DOCKER.format(python=sys.executable, calls=str(calls), failing=failing), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_the_exact_command() -> None:
    line = docker.command(
        Path("/srv/my models"),
        "26.07",
        "vllm-python-py3",
        where=Ports(1, 2, 3),
        name="proof",
        models=["a", "b"],
        gpus=True,
        extra_args=["--log-verbose=1"],
    )
    assert shlex.join(line) == (
        "docker run --rm --shm-size=1g --name=proof --gpus=all --publish=127.0.0.1:1:8001 --publish=127.0.0.1:2:8000 "
        "--publish=127.0.0.1:3:8002 '--mount=type=bind,source=/srv/my models,target=/models,readonly' "
        "nvcr.io/nvidia/tritonserver:26.07-vllm-python-py3 tritonserver --model-repository=/models "
        "--model-control-mode=explicit --load-model=a --load-model=b --log-verbose=1"
    )


def test_the_plain_command() -> None:
    line = docker.command(Path("/models"), "24.10", gpus=False)
    assert "--publish=127.0.0.1:8001:8001" in line
    assert line[-3:] == ["nvcr.io/nvidia/tritonserver:24.10-py3", "tritonserver", "--model-repository=/models"]
    assert not any(part.startswith(("--name", "--gpus")) for part in line)


def test_the_options_that_its_plans_need(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "libmine.so").write_bytes(b"1")
    (folder.parent / "config.pbtxt").write_text(
        'backend: "tensorrt"\n'
        f'parameters {{ key: "{needs.VERSION_COMPATIBLE}" value {{ string_value: "true" }} }}\n'
        f'parameters {{ key: "{needs.PLUGINS}" value {{ string_value: "libmine.so" }} }}\n',
        encoding="utf-8",
    )
    line = docker.command(tmp_path, "26.07", extra_args=["--log-verbose=1"])
    assert shlex.join(line).endswith(
        " tritonserver --model-repository=/models --backend-config=tensorrt,version-compatible=true "
        "--backend-config=tensorrt,plugins=/models/m/1/libmine.so --log-verbose=1"
    )
    assert not any(part.startswith("--backend-config") for part in docker.command(tmp_path, "26.07", models=["other"]))


def test_a_folder_with_a_comma() -> None:
    assert '--mount=type=bind,"source=/a,b",target=/models,readonly' in docker.command(Path("/a,b"), "24.10")


def test_the_life_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch)
    with docker.start(tmp_path, "26.07", gpus=False) as running:
        assert running.alive()
        assert running.versions == {"tritonserver": "2.99.0", "image": "nvcr.io/nvidia/tritonserver:26.07-py3"}
    assert not running.alive()
    version, inspect, run, remove = calls.read_text(encoding="utf-8").splitlines()
    assert version == "version"
    assert inspect == "image inspect nvcr.io/nvidia/tritonserver:26.07-py3"
    name = next(part.removeprefix("--name=") for part in run.split() if part.startswith("--name="))
    assert f"--publish=127.0.0.1:{running.ports.grpc}:8001" in run
    assert remove == f"rm --force {name}"


def test_an_image_that_is_not_here_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch, failing=("image", "pull"))
    said: list[str] = []
    with pytest.raises(
        ToolchainError, match=r"Docker cannot pull .*26\.07-py3: Error response from daemon: pull"
    ) as failure:
        docker.start(tmp_path, "26.07", progress=said.append)
    assert said == ["pulling nvcr.io/nvidia/tritonserver:26.07-py3"]
    assert "docker run --rm" in str(failure.value)
    assert "run " not in calls.read_text(encoding="utf-8")


def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="there is no docker on the PATH") as failure:
        docker.start(tmp_path, "26.07")
    assert f"source={tmp_path},target=/models" in str(failure.value)
    assert "run it where Docker is" in str(failure.value)


def test_a_docker_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, failing=("version",))
    with pytest.raises(ToolchainError, match="Docker does not answer: Error response from daemon: version"):
        docker.start(tmp_path, "26.07")


def test_a_container_that_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch, failing=("run",))
    with pytest.raises(ServerStartError, match="run is not possible"):
        docker.start(tmp_path, "26.07", log_path=tmp_path / "log")
    assert calls.read_text(encoding="utf-8").splitlines()[-1].startswith("rm --force repo-builder-")
