"""Names and paths that are safe to write: they stay inside their folder on every file system."""

from __future__ import annotations

from collections.abc import Iterable

from repo_builder.errors import PathEscapeError, RepositoryError

LONGEST = 200
"""Bytes of one name; most file systems end at 255, and suffixes are added beside the repository."""


def check_name(name: str, what: str = "model") -> str:
    """``name`` when it can be one folder of a repository.

    Raises:
        PathEscapeError: it would leave the repository.
        RepositoryError: empty, hidden, too long or not printable.
    """
    mend = "use letters, digits, '-', '_' and '.', and do not begin with '.'"
    if "/" in name or "\\" in name or name in (".", ".."):
        raise PathEscapeError(f"{what} name {name!r} is a path", expected="one folder name", mend=mend)
    if not name or name.startswith(".") or name != name.strip() or not name.isprintable():
        raise RepositoryError(f"{what} name {name!r} cannot be a folder of a repository", mend=mend)
    if len(name.encode()) > LONGEST:
        raise RepositoryError(
            f"{what} name {name[:40]!r}... has {len(name.encode())} bytes", expected=f"at most {LONGEST}", mend=mend
        )
    return name


def check_path(path: str, model: str) -> str:
    """``path`` when it is relative, in POSIX form and stays below its folder.

    Raises:
        PathEscapeError: absolute, with ``..``, backslashes, empty or unprintable parts.
    """
    parts = path.split("/")
    if "\\" in path or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise PathEscapeError(
            f"file {path!r} does not stay inside the folder of model {model!r}",
            expected="a relative path with '/' and without '..'",
        )
    return path


def check_case(names: Iterable[str], where: str) -> None:
    """Refuse names that are one name on file systems that fold case.

    Raises:
        RepositoryError: two names differ only by case.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise RepositoryError(
                f"{where} would hold {other!r} and {name!r}, which differ only by case",
                expected="names that stay apart on every file system",
                mend="rename one of them",
            )
