"""A build killed at any of its file operations leaves the old or the new repository, and the next build finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs on a disk take minutes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def _killed_everywhere(scenario: str, how: str, folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(TESTS / "killed_builds.py"), scenario, how, str(folder)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check(found: dict[str, object]) -> None:
    assert found["wrong"] == []
    assert found["operations"] > 60
    assert found["old"] + found["new"] + found["missing"] == found["operations"] + 1 - found["start"]
    assert found["old"] > 5, "some kills must hit before the exchange"
    assert found["new"] > 5, "some kills must hit after the exchange"


@pytest.mark.parametrize("scenario", ["first", "replace", "new-version", "remove"])
def test_killed_at_every_operation(scenario: str, fast_folder: Path) -> None:
    found = _killed_everywhere(scenario, "exchange", fast_folder)
    _check(found)
    assert found["missing"] == 0


def test_killed_at_every_operation_where_folders_cannot_be_exchanged(fast_folder: Path) -> None:
    found = _killed_everywhere("replace", "rename", fast_folder)
    _check(found)
    assert found["missing"] == 1, "between the two renames the repository is away, and comes back"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["beside-foreign", "replace-newest", "facts-only"])
def test_killed_at_every_operation_of_rarer_builds(scenario: str, fast_folder: Path) -> None:
    found = _killed_everywhere(scenario, "exchange", fast_folder)
    assert found["wrong"] == []
    assert found["operations"] > 60


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["first", "beside-foreign", "new-version", "replace-newest", "remove"])
def test_killed_where_folders_cannot_be_exchanged(scenario: str, fast_folder: Path) -> None:
    found = _killed_everywhere(scenario, "rename", fast_folder)
    _check(found)
