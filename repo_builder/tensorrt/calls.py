"""One call into TensorRT: a script of ``worker/`` in a process of its own, JSON in, JSON out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder import toolchain
from repo_builder.errors import TensorRTError

if TYPE_CHECKING:
    from repo_builder.tensorrt.installation import Installation

Progress = Callable[[str], None]
SCRIPTS = Path(__file__).parent / "worker"
_SHOWN_LINES = 8


def call(
    installation: Installation, script: str, request: Mapping[str, Any], progress: Progress | None = None
) -> dict[str, Any]:
    """The answer of ``worker/SCRIPT``; TensorRT's own messages go to a log that is kept when the process dies.

    Args:
        installation: whose Python runs the script; its module is the one that is imported.
        script: ``build.py``, ``parse.py``, ``inspect_plan.py``, ...
        request: JSON values, as the script's first lines describe them.
        progress: told before the call what runs.

    Raises:
        TensorRTError: TensorRT refuses the request, in its own words; or the process died, with the end of its log.
    """
    if progress:
        progress(f"{installation.called}: {script.removesuffix('.py').replace('_', ' ')}")
    return run(installation.python, script, {**request, "module": installation.module})


def run(python: Path, script: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """:func:`call` for a Python that is not known yet to have TensorRT."""
    logs = toolchain.cache_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(dict(request)), encoding="utf-8")
        handle, log = tempfile.mkstemp(prefix=f"tensorrt-{Path(script).stem}-", suffix=".log", dir=logs)
        with open(handle, "wb") as out:
            done = subprocess.run(
                [python, "-B", SCRIPTS / script, asked, answered],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                check=False,
            )
        if done.returncode or not answered.is_file():
            raise _died(script, done.returncode, Path(log))
        answer = dict(json.loads(answered.read_text(encoding="utf-8")))
    Path(log).unlink()
    if refused := answer.get("refused"):
        raise TensorRTError(refused["found"], expected=refused["expected"], mend=refused["mend"])
    return answer


def _environment() -> dict[str, str]:
    """Ours, without the variable that overrides TF32 whatever was asked for."""
    return {**{k: v for k, v in os.environ.items() if k != "NVIDIA_TF32_OVERRIDE"}, "PYTHONUTF8": "1"}


def _died(script: str, code: int, log: Path) -> TensorRTError:
    lines = log.read_bytes()[-20000:].decode("utf-8", "replace").splitlines()
    tail = "\n    ".join(line[:300] for line in lines[-_SHOWN_LINES:])
    ended = f"was killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
    why = ", as a lack of memory does" if code == -signal.SIGKILL else ""
    return TensorRTError(
        f"the TensorRT process ({script}) {ended}{why}" + (f"; its last lines:\n    {tail}" if tail else ""),
        expected="an answer from TensorRT",
        mend=f"read {log}; a TensorRT without a usable GPU and driver ends so, and so does one out of memory",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
