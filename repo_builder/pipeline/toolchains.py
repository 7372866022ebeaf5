"""The environments of frameworks: which there are, making one ahead of time, deleting one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from repo_builder import formats, toolchain
from repo_builder.errors import ToolchainError, nearest
from repo_builder.formats.framework_process import Framework

Progress = Callable[[str], None]


def listed() -> dict[str, Any]:
    """JSON values: where the cache is, and one row per environment: framework or other, installed, size, formats."""
    rows, known = [], set()
    for framework, takes in _frameworks():
        home = _home(framework)
        known.add(home)
        there = home in toolchain.installed()
        rows.append(_row(framework.name, home if there else None, ", ".join(takes)))
    rows += [_row(home.name, home, "") for home in toolchain.installed() if home not in known]
    return {"cache": str(toolchain.cache_root()), "environments": rows}


def install(name: str, progress: Progress | None = None) -> Path:
    """The Python of a framework's environment, made where it is not there yet.

    Raises:
        ToolchainError: there is no such framework; or no network, no room.
    """
    known = {framework.name: framework for framework, _ in _frameworks()}
    found = [one for called, one in known.items() if name and name in (called, called.rpartition("-")[0])]
    if len(found) != 1:
        raise ToolchainError(
            f"there is no framework {name!r}{nearest(name, list(known))}",
            expected="one of " + ", ".join(known),
            mend="other environments are made by the builds that need them",
        )
    return toolchain.ensure(found[0].name, found[0].requirements, progress=progress)


def remove(name: str) -> tuple[Path, ...]:
    """Delete every environment of this name, half-made ones too; gives their folders.

    Raises:
        ToolchainError: there is none.
    """
    homes = _found(name, toolchain.begun())
    for home in homes:
        toolchain.remove(home)
    return homes


def path(name: str) -> Path:
    """The Python of an environment; of several of one name that of the current pins, else the last.

    Raises:
        ToolchainError: there is none.
    """
    homes = _found(name, toolchain.installed())
    current = [_home(framework) for framework, _ in _frameworks()]
    return next((home for home in homes if home in current), homes[-1]) / "bin" / "python"


def _frameworks() -> list[tuple[Framework, list[str]]]:
    """Every framework with an environment of its own, and the formats that need it."""
    found: dict[str, tuple[Framework, list[str]]] = {}
    for name in formats.FORMATS:
        framework = getattr(formats.get(name), "FRAMEWORK", None)
        if framework and framework.requirements:
            found.setdefault(framework.name, (framework, []))[1].append(name)
    return list(found.values())


def _home(framework: Framework) -> Path:
    return toolchain.folder(framework.name, framework.requirements, (), toolchain.this_interpreter())


def _found(name: str, there: tuple[Path, ...]) -> tuple[Path, ...]:
    """By the folder's name, the name without its digest, or without its version too."""

    def names(home: Path) -> tuple[str, ...]:
        bare = home.name.rpartition("-")[0]
        return (home.name, bare, bare.rpartition("-")[0])

    homes = tuple(home for home in there if name and name in names(home))
    if not homes:
        raise ToolchainError(
            f"there is no environment {name!r} in {toolchain.cache_root()}",
            expected="one of " + (", ".join(home.name for home in there) or "none: the cache is empty"),
            mend=f"make it with `repo-builder toolchain install {name}`",
        )
    return homes


def _row(name: str, home: Path | None, takes: str) -> dict[str, Any]:
    size = sum(p.lstat().st_size for p in home.rglob("*") if p.is_file()) if home else 0
    return {
        "name": name,
        "installed": "yes" if home else "no",
        "MB": round(size / 1e6),
        "formats": takes,
    }
