"""What a spec leaves to the machine: the cores and the memory that a model may use where it is served."""

from __future__ import annotations

import os
from pathlib import Path

from repo_builder.spec import MEMORY_PER_CPU, ModelSpec, Spec

GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


def resolved(spec: Spec) -> Spec:
    """The spec with ``cpus`` and ``memory`` filled in, so that what is built depends on the spec alone.

    Where the cores are told, this machine's memory does not count: the same spec makes the same bytes everywhere.
    """
    return spec.model_copy(update={"models": tuple(_resolved(model) for model in spec.models)})


def _resolved(model: ModelSpec) -> ModelSpec:
    memory = model.memory or (memory_gib() if model.cpus is None else MEMORY_PER_CPU * model.cpus)
    return model.model_copy(update={"cpus": model.cpus or cpus(), "memory": memory})


def cpus(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2 or v1)."""
    available = len(os.sched_getaffinity(0))
    quota, period = [*_words(cgroup / "cpu.max"), "", ""][:2]
    if not quota:
        quota = "".join(_words(cgroup / "cpu/cpu.cfs_quota_us")[:1])
        period = "".join(_words(cgroup / "cpu/cpu.cfs_period_us")[:1])
    if quota.isdigit() and period.isdigit() and int(period):
        available = min(available, max(1, int(quota) // int(period)))
    return available


def memory_gib(cgroup: Path = _CGROUP) -> int:
    """GiB of this machine or of its container, whichever is less; at least 1."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = "".join(_words(cgroup / name)[:1])
        if limit.isdigit() and int(limit):
            total = min(total, int(limit))
    return max(1, total // GIB)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
