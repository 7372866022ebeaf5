"""The file of tactic timings that builds on one GPU with one TensorRT share, several at once too."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import runtime


def load(trt, config, path):
    """(cache, ``new`` or ``reused``, remarks) of a build; (None, None, []) where none is asked for.

    TensorRT-RTX keeps none. A file that this version or GPU does not take is begun anew, with a remark; the builds that
    share it replace it whole. The cache must live until the plan is built.
    """
    if not path or runtime.is_rtx(trt):
        return None, None, []
    kept = _read(path)
    cache = _use(config, kept) if kept else None
    if cache is not None:
        return cache, "reused", []
    cache = _use(config, b"")
    if cache is None:
        raise runtime.lacks(trt, "timing cache", "a version that keeps one", "leave timing_cache out")
    return cache, "new", [f"the timing cache {path} was not readable and is begun anew"] if kept else []


def save(config, cache, path):
    """Add what this build timed to what the file holds now, one build at a time; nothing of another build is lost."""
    folder = Path(path).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(f"{path}.lock"):
        kept = _read(path)
        if kept:
            with contextlib.suppress(RuntimeError, TypeError):  # a broken file adds nothing
                other = config.create_timing_cache(kept)
                runtime.ALIVE.append(other)
                if other is not None:
                    cache.combine(other, False)
        runtime.write(path, bytes(cache.serialize()))


def _use(config, data):
    with contextlib.suppress(RuntimeError, TypeError):
        cache = config.create_timing_cache(data)
        runtime.ALIVE.append(cache)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _read(path):
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as handle:
        return handle.read()
    return b""


@contextlib.contextmanager
def _locked(path):
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
