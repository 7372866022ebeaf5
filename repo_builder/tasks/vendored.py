"""Libraries that travel in a repository, so that a stock server image needs no ``pip install``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from repo_builder.artifact import file_digest
from repo_builder.errors import MissingDependencyError, TargetError

_LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "METADATA")


@dataclass(frozen=True)
class Library:
    """An installed distribution as files to link or copy.

    Attributes:
        version: of the distribution.
        digest: sha256 over the names and contents of ``files``.
        files: by path relative to a folder on ``sys.path``; licence and METADATA included, developers' files left out.
    """

    version: str
    digest: str
    files: Mapping[str, Path]


def library(name: str, *, python_only: bool = False) -> Library:
    """The installed distribution ``name`` (its package has the same name), if any later CPython on Linux can import it.

    Args:
        python_only: leave compiled modules out, which the package can do without (markupsafe).

    Raises:
        MissingDependencyError: it is not installed.
        TargetError: it is neither pure Python nor a Linux wheel with the stable ABI (abi3), so another Python could not
            import it.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"the package {name}, which travels with the repository, is not installed",
            mend="pip install 'repo-builder[huggingface]'",
        ) from error
    tags = [line.removeprefix("Tag: ") for line in (found.read_text("WHEEL") or "").splitlines() if "Tag: " in line]
    if not python_only and not any(("-abi3-" in tag and "linux" in tag) or tag.endswith("-none-any") for tag in tags):
        raise TargetError(
            f"{name} {found.version} is installed from a wheel for {', '.join(tags) or sys.platform}",
            expected="a Linux wheel with the stable ABI (abi3), which the server's Python can import",
            mend=f"build on Linux, with a CPython for which {name} has an abi3 wheel",
        )
    files = {str(path): Path(str(path.locate())) for path in found.files or () if _needed(path, python_only)}
    return Library(found.version, digest_of(files), dict(sorted(files.items())))


def _needed(path: PurePosixPath, python_only: bool) -> bool:
    if path.parts[0].endswith(".dist-info"):
        return path.name.startswith(_LICENCES)
    return (
        path.suffix in ((".py",) if python_only else (".py", ".so"))
        and "tools" not in path.parts
        and ".." not in path.parts
    )


def digest_of(files: Mapping[str, Path]) -> str:
    """sha256 over sorted names and contents."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{file_digest(files[name])}\0".encode())
    return digest.hexdigest()
