"""A transformers that still has the pipelines which 5.3 removed: scripts are run with it, in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from repo_builder import child, toolchain
from repo_builder.errors import ToolchainError

Progress = Callable[[str], None]
VERSION = "5.2.0"
_SCRIPTS = Path(__file__).parent / "oracles"
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
    return child.run(
        [python(progress), "-I", _SCRIPTS / script],
        {**request, "site_packages": _site_packages()},
        what=f"the reference run of transformers ({script})",
        expected="a model that the pipeline of this older transformers runs",
        mend="shorter or fewer samples (`samples:`) need less memory",
        environment={**os.environ, **_VARIABLES},
    )


def _below_5_3(version: str) -> bool:
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) < (5, 3)


def _site_packages() -> list[str]:
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
