"""A transformers that still has the pipelines which 5.3 removed: scripts are run with it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from repo_builder import toolchain
from repo_builder.errors import ToolchainError

Progress = Callable[[str], None]
VERSION = "5.2.0"
_SCRIPTS = Path(__file__).parent / "oracles"
_SHOWN_LINES = 8
_VARIABLES = {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def python(progress: Progress | None = None) -> Path:
    """The Python that holds it: this one where its transformers is below 5.3, else an environment made on first use.

    The environment has no PyTorch; scripts find the builder's own behind its packages.

    Raises:
        ToolchainError: there is no such environment yet and it cannot be made.
    """
    if _below_5_3(metadata.version("transformers")):
        return Path(sys.executable)
    try:
        return toolchain.ensure(f"transformers-{VERSION}", [f"transformers=={VERSION}"], progress=progress)
    except ToolchainError as error:
        raise ToolchainError(
            f"the reference of this task needs transformers {VERSION}, the last with its pipeline: {error.found}",
            expected=error.expected,
            mend=f"{error.mend}; or, without a network, install repo-builder beside transformers {VERSION}, or copy "
            f"{toolchain.cache_root()} from a like machine (REPO_BUILDER_CACHE names another place for it)",
        ) from error


def run(script: str, request: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """The answers of ``oracles/SCRIPT``, which reads ``request`` as JSON and writes JSON; what it says goes to a log.

    Raises:
        ToolchainError: as :func:`python`; or the script failed, with the end of its log.
    """
    executable = python(progress)
    logs = toolchain.cache_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps({**request, "site_packages": _site_packages()}), encoding="utf-8")
        handle, log = tempfile.mkstemp(prefix=f"{Path(script).stem}-", suffix=".log", dir=logs)
        with open(handle, "wb") as out:
            done = subprocess.run(
                [executable, "-I", _SCRIPTS / script, asked, answered],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_VARIABLES},
                check=False,
            )
        if done.returncode or not answered.is_file():
            raise _failed(script, done.returncode, Path(log))
        Path(log).unlink()
        return dict(json.loads(answered.read_text(encoding="utf-8")))


def _below_5_3(version: str) -> bool:
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) < (5, 3)


def _site_packages() -> list[str]:
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _failed(script: str, code: int, log: Path) -> ToolchainError:
    lines = log.read_bytes()[-20000:].decode("utf-8", "replace").splitlines()
    tail = "\n    ".join(line[:300] for line in lines[-_SHOWN_LINES:])
    ended = f"was killed by signal {-code}{', as a lack of memory does' * (code == -9)}" if code < 0 else "failed"
    return ToolchainError(
        f"the reference run of transformers ({script}) {ended}" + (f"; its last lines:\n    {tail}" if tail else ""),
        expected="a model that the pipeline of this older transformers runs",
        mend=f"read {log}; shorter or fewer samples (`samples:`) need less memory",
    )
