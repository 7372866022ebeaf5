"""The real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MAIN = "from repo_builder.cli import main; main()"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def command(*arguments: str | Path, python: str | Path = sys.executable) -> list[str]:
    return [str(python), "-c", MAIN, *map(str, arguments)]


def run(*arguments: str | Path, cwd: Path, python: str | Path = sys.executable, **options: Any) -> Ended:
    """Run ``repo-builder ARGUMENTS`` in ``cwd`` to its end."""
    options.setdefault("timeout", 300)
    done = subprocess.run(
        command(*arguments, python=python),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def start(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """``repo-builder ARGUMENTS`` in a process group of its own, with pipes; the caller ends it."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
