"""Builds of a test module's own spec."""

from __future__ import annotations

from pathlib import Path

from repo_builder import pipeline


def build(folder: Path, spec: str) -> tuple[pipeline.Result, Path]:
    """The repository of ``spec``, whose sources lie in ``folder``; every model of it is proven."""
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    result = pipeline.build(folder / "spec.yaml", folder / "repository")
    result.raise_failed()
    return result, folder / "repository"
