"""Looking at a source before any loader does: missing, empty, stand-ins for a file, paths that leave the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repo_builder.errors import PathEscapeError, SourceCorruptError, SourceMissingError, first_line, nearest

_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)
_JSON_LIMIT = 256 * 1024 * 1024


def missing(path: Path, *, owner: str = "") -> SourceMissingError:
    """The error for a path that does not exist; names what lies beside it."""
    folder = path.parent
    if not folder.is_dir():
        return SourceMissingError(f"there is no {path}", expected=f"a folder {folder}", mend="check the path")
    names = sorted(p.name for p in folder.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    by = f", which {owner} names" if owner else ""
    return SourceMissingError(
        f"there is no {path}{by}{nearest(path.name, names)}",
        expected=f"one of the names in {folder}: {shown}" if names else f"a file in {folder}, which is empty",
        mend="check the spelling, or fetch the file again",
    )


def refuse_stand_ins(path: Path, *, owner: str = "") -> None:
    """Refuse what is no model at all: a missing or empty file, a git-lfs pointer, a saved web page.

    Args:
        path: the file; only its first bytes are read.
        owner: the file that names this one, for the message.

    Raises:
        SourceMissingError, SourceCorruptError: with the mend.
    """
    if not path.is_file():
        if path.exists():
            raise SourceCorruptError(f"{path} is not a regular file", expected="a model file")
        raise missing(path, owner=owner)
    try:
        with open(path, "rb") as handle:
            head = handle.read(512)
    except OSError as error:
        raise SourceMissingError(
            f"{path} cannot be read ({error.strerror})", mend="check the file's permissions"
        ) from error
    if not head:
        raise SourceCorruptError(f"{path} is empty (0 bytes)", expected="a model", mend="export or copy it again")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise SourceCorruptError(
            f"{path} is a git-lfs pointer, not the file itself",
            expected="the file that it points to",
            mend="run `git lfs pull` in its repository",
        )
    if _HTML.match(head):
        raise SourceCorruptError(
            f"{path} is a web page (HTML), not a model",
            expected="the file itself",
            mend="download it again: the server answered with a page, often a login or a 'not found'",
        )


def head(path: Path, size: int) -> bytes:
    """The first bytes of a file; none where it is no file, or cannot be read: ``describe`` says so."""
    try:
        with open(path, "rb") as handle:
            return handle.read(size) if path.is_file() else b""
    except OSError:
        return b""


def inside(folder: Path, relative: str, *, owner: str) -> Path:
    """The path of a file that ``owner`` names, which must lie in ``folder``, through symbolic links too.

    A snapshot in a Hugging Face cache links into the ``blobs`` folder of its own repository: that counts as inside.

    Raises:
        PathEscapeError: it is absolute, has ``..`` in it, or a link leads out.
        SourceMissingError: a link that leads to itself, or a name that no file can have.
    """
    parts = re.split(r"[/\\]", relative)
    path = folder / relative
    if Path(relative).is_absolute() or re.match(r"[A-Za-z]:[/\\]", relative) or ".." in parts or "\0" in relative:
        raise _escape(folder, relative, owner)
    home = folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots" and (home.parent.parent / "blobs").is_dir():
        allowed.append(home.parent.parent / "blobs")
    try:
        real = path.resolve()
        path.exists()
    except (OSError, RuntimeError) as error:
        raise SourceMissingError(
            f"{owner} names the file '{relative[:200]}', which cannot be opened ({first_line(error)[:200]})",
            expected=f"a file in {folder}",
            mend="copy the file there; a link must not lead to itself",
        ) from error
    if not any(real == root or root in real.parents for root in allowed):
        raise _escape(folder, relative, owner, f", a link to {real}")
    return path


def _escape(folder: Path, relative: str, owner: str, how: str = "") -> PathEscapeError:
    return PathEscapeError(
        f"{owner} names the file '{relative}'{how}, which lies outside {folder}",
        expected=f"a relative path inside {folder}",
        mend="copy the file into the model's folder and export or edit the path again",
    )


def stamp(folder: Path, files: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """Name, modification time (ns) and size of files: a key for models that are kept in memory."""
    stats = [(name, (folder / name).stat()) for name in files]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def read_json(path: Path, expected: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """A JSON file's value, an object unless ``expected`` says list.

    Raises:
        SourceMissingError, SourceCorruptError: missing, empty, too large, not UTF-8, not JSON, or of another type.
    """
    refuse_stand_ins(path)
    kind = "an object" if expected is dict else "a list"
    if path.stat().st_size > _JSON_LIMIT:
        raise SourceCorruptError(f"{path} is larger than {_JSON_LIMIT} bytes", expected=f"a JSON file with {kind}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourceCorruptError(
            f"{path} is not UTF-8 (byte {error.start})", expected=f"a JSON file with {kind}", mend="save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SourceCorruptError(
            f"{path} is not JSON ({error})", expected=f"a JSON file with {kind}", mend="copy or download it again"
        ) from error
    if not isinstance(value, expected):
        raise SourceCorruptError(
            f"{path} holds a JSON {type(value).__name__}", expected=kind, mend="copy or download it again"
        )
    return value
