"""What a spec leaves to the machine is filled in once, before the build key is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repo_builder.pipeline import machine, resolve
from repo_builder.spec import MEMORY_PER_CPU


def test_the_cores_are_this_machine_s_where_none_are_told() -> None:
    (model,) = resolve("net.onnx").models
    assert model.cpus == machine.cpus()
    assert model.memory == machine.memory_gib()


def test_told_cores_leave_nothing_to_the_machine() -> None:
    (model,) = resolve("net.onnx", cpus=48).models
    assert (model.cpus, model.memory) == (48, 48 * MEMORY_PER_CPU)
    (model,) = resolve("net.onnx", cpus=48, memory=7).models
    assert (model.cpus, model.memory) == (48, 7)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("models:\n  - {source: a.onnx, cpus: 4, memory: 3}\n  - {source: b.onnx}\n", encoding="utf-8")
    assert resolve(path).models[0].memory == 3
    assert resolve(path).models[0].cpus == 4
    assert [m.cpus for m in resolve(path, cpus=9).models] == [9, 9]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    write(tmp_path, files)
    assert machine.cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_a_container_limits_the_memory(tmp_path: Path, name: str) -> None:
    whole = machine.memory_gib(tmp_path)
    write(tmp_path, {name: "max\n"})
    assert machine.memory_gib(tmp_path) == whole
    write(tmp_path, {name: f"{3 << 29}\n"})
    assert machine.memory_gib(tmp_path) == 1


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
