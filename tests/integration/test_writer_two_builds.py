"""Two processes that build into one repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from repository_units import plain

from repo_builder.errors import RepositoryLockedError
from repo_builder.repository import manifest, write

TESTS = Path(__file__).parent.parent


@contextmanager
def _other(repository: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that prints a line when it holds the repository, and goes on at a line from us."""
    head = f"""
        import sys
        from pathlib import Path
        from repository_units import plain
        from repo_builder.repository import write
        R = Path({str(repository)!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


HOLD = """
    with write.transaction(R) as t:
        t.stage([plain("theirs", b"t", key="t")])
        print("held", flush=True)
        sys.stdin.readline()
        t.commit()
"""

WRITE = """
    with write.transaction(R) as t:
        t.stage([plain("b", b"b", key="b")])
        t.commit()
"""


def test_second_build_names_the_process_that_holds_the_repository(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    with _other(repository, HOLD) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RepositoryLockedError) as caught, write.transaction(repository, wait_s=0.3):
            pass
        assert f"another build (process {other.pid}) holds" in str(caught.value)
        assert "did not end within 0.3 s" in str(caught.value)
        assert caught.value.exit_code == 31


def test_second_build_waits_and_keeps_what_the_first_wrote(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    with _other(repository, HOLD) as other:
        assert other.stdout.readline() == "held\n"
        with _other(
            repository, 'with write.transaction(R) as t:\n    t.stage([plain("b", b"b", key="b")])\n    t.commit()'
        ) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=2)
            other.stdin.write("\n")
            other.stdin.flush()
            assert second.wait(timeout=60) == 0
        assert other.wait(timeout=60) == 0
    assert manifest.unchanged(repository, "theirs", "t")
    assert manifest.unchanged(repository, "b", "b")


def test_lock_of_a_killed_build_is_free(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    with _other(repository, HOLD) as other:
        assert other.stdout.readline() == "held\n"
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=60)
    with write.transaction(repository, wait_s=0) as t:
        t.stage([plain("ours", b"o", key="o")])
        t.commit()
    assert manifest.unchanged(repository, "ours", "o")
    assert not (repository / "theirs").exists()


def test_builds_that_leave_nothing_leave_no_folder_and_never_hold_the_repository_at_once(tmp_path: Path) -> None:
    """Each process appends to a file while it holds the lock, in two steps that would show another one between."""
    script = """
        import time
        for _ in range(40):
            with write.transaction(R, wait_s=60):
                with open(R.parent / "log", "a") as log:
                    log.write("(")
                    log.flush()
                    time.sleep(0.002)
                    log.write(")")
        print("done", flush=True)
        sys.stdin.readline()
    """
    repository = tmp_path / "models"
    with _other(repository, script) as one, _other(repository, script) as two, _other(repository, script) as three:
        assert [process.stdout.readline() for process in (one, two, three)] == ["done\n"] * 3
    assert (tmp_path / "log").read_text() == "()" * 120
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
