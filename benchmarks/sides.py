"""What is measured: processes that send texts, and the servers that answer them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ARRANGEMENTS = {
    "one session, all threads": "every caller runs the one session, which spreads each operator over all cores",
    "a session per core": "one thread each; a caller waits for a free one",
    "one session, one thread": "every caller runs the one session in its own thread",
}
"""In one process; see in_process.py."""
TICKS = os.sysconf("SC_CLK_TCK")


class Side:
    """A process that obeys load.py's commands, and the server behind it where there is one."""

    def __init__(self, command: list[str], server: Any = None) -> None:
        self.server = server
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = np.array(self._read(), dtype=np.float32)

    def run(self, workload: str, clients: int, seconds: float) -> dict[str, float]:
        """Texts per second, p50 and p99 in ms, and CPU in ms per text: of server and clients together."""
        before = self._server_cpu_s()
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"workload": workload, "clients": clients, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        found = self._read()
        count, cpu_s = len(found["latencies"]), found["cpu_s"] + self._server_cpu_s() - before
        p50, p99 = (float(np.percentile(found["latencies"], q)) * 1000 for q in (50, 99))
        return {
            "texts_per_s": count / found["elapsed"],
            "p50_ms": p50,
            "p99_ms": p99,
            "cpu_ms": cpu_s / count * 1000,
            "client_cpu_ms": found["cpu_s"] / count * 1000,
        }

    def _read(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def _server_cpu_s(self) -> float:
        return sum(map(cpu_s, tree(self.server.pid))) if self.server else 0.0

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)
        if self.server:
            self.server.stop()


def served(repository: Path, shape: Iterable[int] = (1, 1), onnxruntime: str | None = None) -> Side:
    """The ensemble ``minilm`` of a repository, in the embedded server."""
    from repo_builder import server

    running = server.start(repository, onnxruntime=onnxruntime)
    script = [sys.executable, str(HERE / "grpc_clients.py"), running.url, "minilm", json.dumps(list(shape))]
    try:
        return Side(script, running)
    except BaseException:
        running.stop()
        raise


def in_process(python: Path, repository: Path, arrangement: str, cpus: int) -> Side:
    return Side([str(python), str(HERE / "in_process.py"), str(repository), arrangement, str(cpus)])


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(pid: int) -> float:
    """User and system time of all threads."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def stat(pid: int) -> list[str]:
    """``/proc/PID/stat`` from the state on; empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


Rounds = list[dict[str, float]]


def compare(
    sides: Mapping[str, Side], workload: str, clients: int, *, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Medians of every side, which take turns; ``rounds`` holds the single ones, for ratios of neighbours."""
    found: dict[str, Rounds] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side.run(workload, clients, seconds))
    return {
        name: {**{key: float(np.median([one[key] for one in each])) for key in each[0]}, "rounds": each}
        for name, each in found.items()
    }


def ratio(one: Mapping[str, Any], other: Mapping[str, Any], key: str = "texts_per_s") -> float:
    """Median of the ratios of each round: neighbours in time share the machine's mood."""
    return float(np.median([a[key] / b[key] for a, b in zip(one["rounds"], other["rounds"], strict=True)]))
