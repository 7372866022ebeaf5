"""The embedded server: what it serves, how it fails, that it always ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import client, server
from repo_builder.errors import PortInUseError, ServerStartError, ServerUnavailableError, SourceMissingError
from tests.integration.standins import infer

pytestmark = pytest.mark.server

ECHO = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]) for array in arrays]
"""
CONFIG = """
backend: "python"
input { name: "IN" data_type: TYPE_FP32 dims: 2 }
output { name: "OUT" data_type: TYPE_FP32 dims: 2 }
instance_group { kind: KIND_CPU count: 1 }
"""


def write(repository: Path, name: str = "echo", source: str = ECHO) -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(source, encoding="utf-8")
    (repository / name / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    return repository


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="utf-8").split()):
            found |= {child} | children(child)
    return found


def shared_memory() -> set[str]:
    """The shared memory of all servers that this process started."""
    return {path.name for path in Path("/dev/shm").glob(f"repo_builder_{os.getpid()}_*")}


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ended(pids: set[int], seconds: float = 30) -> bool:
    """Whether all processes end in time."""
    end = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(runs, pids))


@pytest.fixture(scope="module")
def running(server_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.RunningServer]:
    started = server_factory(write(tmp_path_factory.mktemp("echo") / "models"))
    yield started
    started.stop()


def test_serves_and_says_who_it_is(running: server.RunningServer) -> None:
    import tritonclient.grpc as grpc

    assert running.alive()
    assert running.url == f"127.0.0.1:{running.ports.grpc}"
    assert running.versions["tritonserver"] == "2.51.0"
    assert running.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "onnxruntime" not in running.versions
    array = np.array([1, 2], np.float32)
    with grpc.InferenceServerClient(running.url) as client:
        np.testing.assert_array_equal(infer(client, "echo", IN=array)["OUT"], array)
    assert "Started GRPCInferenceService at 127.0.0.1" in running.log_tail()


def test_listens_on_one_address_alone(running: server.RunningServer) -> None:
    """Who listens on all addresses answers on 127.0.0.2 too."""
    for port in (running.ports.grpc, running.ports.http, running.ports.metrics):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_a_port_in_use(running: server.RunningServer, tmp_path: Path) -> None:
    with pytest.raises(PortInUseError) as failure:
        server.start(write(tmp_path / "models"), grpc_port=running.ports.grpc)
    assert f"port {running.ports.grpc} for gRPC cannot be used on 127.0.0.1: Address already in use" in str(
        failure.value
    )
    assert "choose another port, or 0" in str(failure.value)
    assert failure.value.exit_code == 42


def test_a_port_that_is_taken_while_the_server_starts(tmp_path: Path) -> None:
    from repo_builder.server import embedded, keeper, ports

    environment = embedded.prepare(frozenset({"python"}))
    where = ports.choose()
    with socket.create_server(("127.0.0.1", where.http)):
        options = [f"--model-repository={write(tmp_path / 'models')}"]
        started = embedded._launch(environment, options, where, tmp_path / "server.log")
        with pytest.raises(PortInUseError, match="already in use"):
            keeper.await_ready(started, 60)
    assert not started.alive()


def test_stop_leaves_nothing(tmp_path: Path) -> None:
    log, others = tmp_path / "server.log", shared_memory()
    with server.start(write(tmp_path / "models"), log_path=log) as started:
        processes = {started.pid} | children(started.pid)
        names = {Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in processes}
        assert {"tritonserver", "triton_python_b"} <= names
        regions = shared_memory() - others
        assert regions
    assert not started.alive()
    assert ended(processes, 0)
    started.stop()
    assert log.is_file()
    assert not regions & shared_memory()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", started.ports.http)) != 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_owner(tmp_path: Path, number: int) -> None:
    repository = write(tmp_path / "models")
    program = (
        "import sys, time, pathlib; from repo_builder import server\n"
        "started = server.start(pathlib.Path(sys.argv[1]))\n"
        "print(started.pid, started.log_path, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(repository)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pid, log = owner.stdout.readline().split()
        processes = {int(pid)} | children(int(pid))
        assert len(processes) > 1
    finally:
        owner.send_signal(number)
        owner.wait()
        owner.stdout.close()
    assert ended(processes)
    assert not list(Path("/dev/shm").glob(f"repo_builder_{owner.pid}_*"))
    Path(log).unlink()


def test_a_killed_keeper_takes_the_server_with_it(tmp_path: Path) -> None:
    with server.start(write(tmp_path / "models")) as started:
        processes = {started.pid} | children(started.pid)
        os.kill(started._keeper.pid, signal.SIGKILL)
        assert ended(processes)
        assert not started.alive()


def test_waiting_ends_with_the_server(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with server.start(write(tmp_path / "models"), log_path=log) as started:
        os.kill(started.pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailableError, match="the server ended by itself; its log says:") as failure:
            started.wait()
        assert "Started Metrics Service" in str(failure.value)


def test_a_broken_model_shows_the_servers_own_lines(tmp_path: Path) -> None:
    repository = write(write(tmp_path / "models"), "broken", "import no_such_module_anywhere\n")
    with pytest.raises(ServerStartError) as failure:
        server.start(repository)
    said = str(failure.value)
    assert "No module named 'no_such_module_anywhere'" in said
    assert "failed to load 'broken' version 1" in said
    assert "| broken" in said
    assert "| echo " not in said
    assert "successfully loaded" not in said
    log = Path(said.rpartition("the whole log: ")[2])
    assert "Started" not in log.read_text(encoding="utf-8")
    log.unlink()


def test_a_broken_model_may_be_left_out(tmp_path: Path) -> None:
    repository = write(write(tmp_path / "models"), "broken", "import no_such_module_anywhere\n")
    with server.start(repository, models=["echo"]) as started:
        assert started.alive()
    with server.start(repository, strict=False) as started:
        assert "No module named 'no_such_module_anywhere'" in started.log()


def test_too_little_time(tmp_path: Path) -> None:
    slow = ECHO.replace(
        "    def execute", "    def initialize(self, args):\n        import time; time.sleep(600)\n\n    def execute"
    )
    log = tmp_path / "server.log"
    with pytest.raises(ServerStartError, match="the server was not ready after 3 s"):
        server.start(write(tmp_path / "models", source=slow), timeout=3, log_path=log)
    assert "loading: echo:1" in log.read_text(encoding="utf-8")


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match="there is no model repository"):
        server.start(tmp_path / "absent")


def test_a_path_that_a_shell_would_take_apart(
    server_factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python backend starts its processes through bash and quotes nothing."""
    monkeypatch.chdir(tmp_path)
    repository = write(tmp_path / "my models; $(touch ran) 'é'")
    started = server_factory(repository)
    try:
        with client.connect(started.url) as connection:
            answer = connection.infer("echo", {"IN": np.array([1, 2], np.float32)})
        np.testing.assert_array_equal(answer["OUT"], [1, 2])
    finally:
        started.stop()
    assert not (tmp_path / "ran").exists()


def test_runs_without_an_environment(tmp_path: Path) -> None:
    """As in a job that starts with ``env -i``: no PATH, no HOME, no locale."""
    from repo_builder import toolchain

    program = (
        "import sys, pathlib; from repo_builder import server\n"
        "with server.start(pathlib.Path(sys.argv[1])) as started: print(started.versions['tritonserver'])\n"
    )
    environment = {"REPO_BUILDER_CACHE": str(toolchain.cache_root()), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(write(tmp_path / "models"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "2.51.0\n", done.stderr
