"""Merge: two repositories of different GPUs, read and compared, then written as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import repo_builder
from repo_builder.errors import SourceMissingError
from repo_builder.repository import gpus, manifest, write
from repo_builder.repository import merge as merging
from repo_builder.repository.layout import Layout

LOCK_WAIT_S = 1800.0
"""Seconds to wait for a build that holds the repository."""


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        repository: the merged one.
        gpus: compute capabilities that it has plans for, by model of the spec; none for a model without a plan.
        reports: by model: the reports of each GPU under ``gpus``.
        unchanged: it was there already.
    """

    repository: Path
    gpus: Mapping[str, tuple[str, ...]]
    reports: Mapping[str, Mapping[str, Any]]
    unchanged: bool


def merge(
    a: str | Path, b: str | Path, out: str | Path = "model_repository", *, names: Mapping[str, str] | None = None
) -> Merged:
    """One repository of two that were built on different GPUs; ``a`` or ``b`` may be merged ones, or be ``out``.

    Args:
        names: by compute capability (``"9.0"``), names of configs (``h100``) where those of the GPUs differ;
            ``sm90`` and so on by default. ``tritonserver --model-config-name=h100`` takes them.

    Raises:
        SourceMissingError: there is no such folder.
        RepositoryError: the two differ in more than their plans.
        TargetError: no server loads all of it.
    """
    for folder in (a, b):
        if not Path(folder).is_dir():
            raise SourceMissingError(f"there is no folder {folder}", expected="a model repository", stage="merge")
    layout = Layout.of(out)
    made = merging.merged(gpus.read(Path(a)), gpus.read(Path(b)), names)
    units, reports = [unit for unit, _ in made], {unit.name: _signed(report) for unit, report in made}
    found = {unit.name: tuple(unit.facts.get("gpus", ())) for unit in units}
    if all(manifest.unchanged(layout.repository, unit.name, unit.key) for unit in units):
        return Merged(Path(out), found, reports, unchanged=True)
    with write.transaction(out, wait_s=LOCK_WAIT_S) as change:
        change.stage(units)
        change.commit(reports)
    return Merged(Path(out), found, reports, unchanged=False)


def _signed(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**report, "repo_builder": repo_builder.__version__}


def summary(result: Merged) -> dict[str, Any]:
    """JSON values, for people and programs."""
    rows = [{"model": name, "compute capabilities": ", ".join(found) or "any"} for name, found in result.gpus.items()]
    limits = dict.fromkeys(limit for report in result.reports.values() for limit in report.get("limits", ()))
    return {
        "repository": str(result.repository),
        "unchanged": result.unchanged,
        "models": rows,
        **({"limits": "; ".join(limits)} if limits else {}),
    }
