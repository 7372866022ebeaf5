"""Where a repository and what belongs to it lie on the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from repo_builder.errors import RepositoryError

CONFIG = "config.pbtxt"
"""A model's config, one for all its versions."""

KEEP = ".keep"
"""The one file of a version folder that needs none, because git and object stores drop empty folders."""


@dataclass(frozen=True)
class Layout:
    """Paths of one repository ``R`` and of its sibling ``R.build``.

    Triton scans ``R`` alone; the manifest, the proofs, the reports, the lock and the staging tree lie in ``R.build``.
    A symbolic link is followed, so that the sibling lies on the file system of the real folder.
    """

    repository: Path

    @classmethod
    def of(cls, repository: Path | str) -> Layout:
        """The layout of a path.

        Raises:
            RepositoryError: the path is a file, a root, or a mount point.
        """
        given = Path(repository)
        real = Path(os.path.realpath(given))
        if not real.name:
            raise RepositoryError(f"{given} is the root of a file system", mend="name a folder below it")
        if os.path.exists(real) and not os.path.isdir(real):  # noqa: PTH110, PTH112 - False, no error, where it is hidden
            raise RepositoryError(
                f"{given} is a file", expected="a folder, or a path that is free", mend="name another"
            )
        above = next(parent for parent in real.parents if os.path.lexists(parent))
        if not above.is_dir():
            raise RepositoryError(f"{above} is a file", expected="a folder to build in", mend="name another folder")
        if os.path.ismount(real):
            raise RepositoryError(
                f"{given} is a mount point, which cannot be exchanged in one step",
                expected="a folder whose parent lies on the same file system",
                mend=f"build into a folder below it, for example {given / 'models'}",
            )
        return cls(real)

    @property
    def build(self) -> Path:
        return self.repository.parent / f"{self.repository.name}.build"

    @property
    def manifest(self) -> Path:
        return self.build / "manifest.json"

    def proof(self, unit: str) -> Path:
        return self.build / "proof" / f"{unit}.npz"

    def report(self, unit: str) -> Path:
        return self.build / "report" / f"{unit}.json"

    @property
    def lock(self) -> Path:
        return self.build / "lock"

    @property
    def staging(self) -> Path:
        """The tree that a build prepares; a ``manifest.json`` in it means that its exchange has begun."""
        return self.build / "staging"

    @property
    def staged_repository(self) -> Path:
        return self.staging / "repository"

    @property
    def staged_manifest(self) -> Path:
        return self.staging / "manifest.json"

    @property
    def set_aside(self) -> Path:
        """Where the old repository waits when the kernel cannot exchange two folders in one step."""
        return self.staging / "old"
