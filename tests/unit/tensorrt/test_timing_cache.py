"""The file of tactic timings, over a named double of TensorRT's cache: text is what it timed, ``broken`` no cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Worker = Callable[[str], ModuleType]
TRT = SimpleNamespace(__name__="tensorrt", __version__="8.6.1")


class Cache:
    def __init__(self, data: bytes) -> None:
        self.timed = set(data.decode().split())

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timed |= other.timed
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.timed)).encode()


class Config:
    def create_timing_cache(self, data: bytes) -> Cache:
        if data == b"broken":
            raise RuntimeError("bad data")
        return Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert isinstance(cache, Cache)
        return not ignore_mismatch


@pytest.fixture
def timing_cache(worker: Worker) -> Any:
    return worker("timing_cache")


def test_what_one_build_timed_the_next_has(timing_cache: Any, tmp_path: Path) -> None:
    path, config = tmp_path / "deep" / "cache", Config()
    cache, state, remarks = timing_cache.load(TRT, config, str(path))
    assert (state, remarks) == ("new", [])
    cache.timed.add("conv")
    timing_cache.save(config, cache, str(path))
    cache, state, remarks = timing_cache.load(TRT, config, str(path))
    assert (cache.timed, state, remarks) == ({"conv"}, "reused", [])


def test_a_broken_file_is_begun_anew_and_said(timing_cache: Any, tmp_path: Path) -> None:
    path, config = tmp_path / "cache", Config()
    path.write_bytes(b"broken")
    cache, state, remarks = timing_cache.load(TRT, config, str(path))
    assert (cache.timed, state) == (set(), "new")
    assert remarks == [f"the timing cache {path} was not readable and is begun anew"]
    cache.timed.add("conv")
    timing_cache.save(config, cache, str(path))
    assert path.read_bytes() == b"conv"


def test_builds_at_once_keep_what_each_timed(timing_cache: Any, tmp_path: Path) -> None:
    path, started = tmp_path / "cache", threading.Barrier(8)

    def build(number: int) -> None:
        cache, _, _ = timing_cache.load(TRT, Config(), str(path))
        started.wait()  # all have read the file as it was
        cache.timed.add(f"layer{number}")
        timing_cache.save(Config(), cache, str(path))

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes().decode().split() == [f"layer{number}" for number in range(8)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cache", "cache.lock"]


def test_tensorrt_rtx_keeps_none(timing_cache: Any, tmp_path: Path) -> None:
    rtx = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1")
    assert timing_cache.load(rtx, Config(), str(tmp_path / "cache")) == (None, None, [])
    assert timing_cache.load(TRT, Config(), None) == (None, None, [])
