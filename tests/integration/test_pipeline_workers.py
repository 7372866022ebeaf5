"""Models built at once: what happens when a process, or who listens to it, fails."""

from __future__ import annotations

import multiprocessing
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from repo_builder.pipeline import workers

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
WIDE = """\
import torch


def wide():
    return torch.nn.Linear(4, 9000), (torch.ones(2, 4),), {"input": {0: torch.export.Dim("batch")}}


also = wide
"""
BUILD = """\
from repo_builder import pipeline

def progress(_model, _what):
    raise BrokenPipeError("nobody listens")

try:
    pipeline.build("spec.yaml", "out", verify=False, jobs=2, progress=progress)
except BrokenPipeError as error:
    print(error)
"""


def test_a_message_that_is_cut_off_ends_as_a_process_that_ended() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader:
        writer.send(("said", "m", "load"))
        os.write(writer.fileno(), struct.pack("!i", 100) + b"x" * 10)
        writer.close()
        assert workers._received(reader) == ("said", "m", "load")
        assert workers._received(reader) is None


def test_progress_that_fails_ends_the_build_and_its_processes(tmp_path: Path) -> None:
    """The answers are larger than a pipe: a process that nobody hears must not be waited for."""
    (tmp_path / "made.py").write_text(WIDE, encoding="utf-8")
    (tmp_path / "spec.yaml").write_text('models: [{source: "made.py:wide"}, {source: "made.py:also"}]\n')
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "nobody listens\n", done.stderr
    assert not list(tmp_path.rglob("work"))


def test_a_script_without_a_guard_is_told_so_instead_of_waiting_for_itself(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(WIDE, encoding="utf-8")
    (tmp_path / "spec.yaml").write_text('models: [{source: "made.py:wide"}, {source: "made.py:also"}]\n')
    (tmp_path / "script.py").write_text(
        'import repo_builder\n\nrepo_builder.build("spec.yaml", "out", verify=False, jobs=2)\n', encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert 'put the call of build under `if __name__ == "__main__":`' in done.stderr
    assert "the process that built the model ended without a word" in done.stderr
