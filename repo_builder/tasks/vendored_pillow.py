"""Pillow as it travels in a repository: one version, with the extension modules of every Python that may serve it.

Pillow has no wheels of the stable ABI. Of one version the Python files and the shared libraries of all wheels are the
same; the extension modules bear the Python's version in their names and lie side by side.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath

from repo_builder import toolchain
from repo_builder.errors import MissingDependencyError, TargetError, ToolchainError
from repo_builder.tasks.vendored import Library, digest_of

SERVERS = ("3.10", "3.12")
"""The Pythons of Triton's releases (releases.json)."""
_MODULES = ("_imaging.", "_imagingmath.", "_webp.")
_UNUSED = ("libfreetype", "libharfbuzz", "libavif", "liblcms2", "libbrotli", "libpng16")
"""Libraries of fonts, colour profiles and AVIF; PNG is Pillow's own."""
_LICENCES = ("LICENSE", "METADATA")
_WAIT_S = 300.0
"""Seconds that a wheel may take; it has 7 MB."""


def library(progress: Callable[[str], None] | None = None) -> Library:
    """The installed Pillow for this Python and those of Triton's releases; wheels that lack are fetched once.

    Raises:
        MissingDependencyError: it is not installed.
        TargetError: not on Linux, or installed otherwise than from a wheel for it.
        ToolchainError: no pip, no network, or no wheel of this version for one of the Pythons.
    """
    try:
        found = metadata.distribution("pillow")
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            "Pillow, which travels with the repository, is not installed",
            mend="pip install pillow",
        ) from error
    if "linux" not in (found.read_text("WHEEL") or ""):
        raise TargetError(
            f"Pillow {found.version} is not installed from a Linux wheel ({sys.platform})",
            expected="a Linux wheel, whose libraries the server can load",
            mend="build on Linux, with pip install --only-binary=:all: pillow",
        )
    files = {str(path): Path(str(path.locate())) for path in found.files or () if _needed(path)}
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for python in SERVERS:
        if python != own:
            files = {**_unpacked(found.version, python, progress), **files}
    return Library(found.version, digest_of(files), dict(sorted(files.items())))


def _unpacked(version: str, python: str, progress: Callable[[str], None] | None) -> Mapping[str, Path]:
    """The needed files of the wheel for another Python, out of the cache."""
    home = toolchain.cache_root() / "wheels" / f"pillow-{version}-python{python}-{platform.machine()}"
    if not home.is_dir():
        if progress:
            progress(f"fetching Pillow {version} for Python {python}")
        _fetch(version, python, home)
    paths = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    return {path.as_posix(): home / path for path in paths if _needed(PurePosixPath(path))}


def _fetch(version: str, python: str, home: Path) -> None:
    """Unpack the wheel beside its place, then rename it; of two at once the second finds it there."""
    if importlib.util.find_spec("pip") is None:
        raise ToolchainError(
            f"{sys.executable} has no pip, which fetches Pillow {version} for Python {python}",
            expected="pip beside repo-builder: the servers of some releases run another Python",
            mend="python -m ensurepip, or uv pip install pip",
        )
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetching-") as work:
            pip = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps"]
            pip += ["--only-binary=:all:", "--python-version", python, "--dest", work, f"pillow=={version}"]
            if why := _failed(pip):
                raise ToolchainError(
                    f"there is no Pillow {version} for Python {python}, which the servers of some releases run: {why}",
                    expected="a reachable package index that has this wheel",
                    mend="set PIP_INDEX_URL behind a mirror; Pillow 12 is the last with wheels for Python 3.10: "
                    "pip install 'pillow<13'",
                )
            (wheel,) = Path(work).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(work) / "wheel")
            with contextlib.suppress(FileExistsError):
                (Path(work) / "wheel").rename(home)
    except OSError as error:
        if home.is_dir():
            return
        raise ToolchainError(
            f"the cache {home.parent} cannot be written: {error.strerror}",
            expected="a writable folder for wheels",
            mend="set REPO_BUILDER_CACHE to a folder of your own",
        ) from error


def _failed(command: list[str]) -> str:
    """Runs it; the last line of what it said where it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_WAIT_S
        )
    except subprocess.TimeoutExpired:
        return f"pip had not fetched it after {_WAIT_S:g} s"
    return (done.stderr.strip().splitlines() or ["no word"])[-1] if done.returncode else ""


def _needed(path: PurePosixPath) -> bool:
    top = path.parts[0]
    if top.endswith(".dist-info"):
        return path.name.startswith(_LICENCES)
    if top == "pillow.libs":
        return not path.name.startswith(_UNUSED)
    if top != "PIL" or ".." in path.parts:
        return False
    return path.suffix == ".py" or (path.suffix == ".so" and path.name.startswith(_MODULES))
