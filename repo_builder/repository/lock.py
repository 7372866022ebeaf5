"""One build at a time on one repository."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from repo_builder.errors import RepositoryLockedError

STEP_S = 0.1


@contextlib.contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold an exclusive ``flock`` on ``path``; the kernel drops it when the process ends, however it ends.

    Args:
        path: the lock file. Its holder may remove it: who waited for it then takes the next file of that name.
        wait_s: seconds to wait for another build.

    Raises:
        RepositoryLockedError: another process still holds it; the message names its id.
        FileNotFoundError: there is no folder for it, or the holder removed it.
    """
    end = time.monotonic() + wait_s
    while True:
        with _held(path, end, wait_s) as handle:
            if _is(path, handle):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                yield
                return


@contextlib.contextmanager
def _held(path: Path, end: float, wait_s: float) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _take(handle):
            if time.monotonic() >= end:
                holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
                raise RepositoryLockedError(
                    f"another build ({f'process {holder}' if holder else 'of unknown process'}) holds {path}"
                    f" and did not end within {wait_s:g} s",
                    expected="one build at a time on one repository",
                    mend="wait until it has ended, or end it, then build again",
                )
            time.sleep(STEP_S)
        try:
            yield handle
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
