"""One call into TensorRT: a script of ``worker/`` in a process of its own, JSON in, JSON out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder import child
from repo_builder.errors import TensorRTError

if TYPE_CHECKING:
    from repo_builder.tensorrt.installation import Installation

Progress = Callable[[str], None]
SCRIPTS = Path(__file__).parent / "worker"


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
    answer = child.run(
        [python, "-B", SCRIPTS / script],
        request,
        what=f"the TensorRT process ({script})",
        expected="an answer from TensorRT",
        mend="a TensorRT without a usable GPU and driver ends so, and so does one out of memory",
        error=TensorRTError,
        environment=_environment(),
    )
    if refused := answer.get("refused"):
        raise TensorRTError(refused["found"], expected=refused["expected"], mend=refused["mend"])
    return answer


def _environment() -> dict[str, str]:
    """Ours, without the variable that overrides TF32 whatever was asked for."""
    return {**{k: v for k, v in os.environ.items() if k != "NVIDIA_TF32_OVERRIDE"}, "PYTHONUTF8": "1"}
