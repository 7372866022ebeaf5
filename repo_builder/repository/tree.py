"""Files and folders as the writer moves them: linked or copied by the kernel, with modes of their own, flushed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_MODE, PROGRAM_MODE, FOLDER_MODE = 0o644, 0o755, 0o755
CACHE = "__pycache__"
"""Triton's Python stub writes this into the repository that it serves; it is never ours and never kept."""

_NO_LINK = {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def make_folder(folder: Path, root: Path) -> None:
    """Create ``folder`` and its parents below ``root``, all with mode 0755 whatever the umask is."""
    if folder == root or folder.is_dir():
        return
    make_folder(folder.parent, root)
    folder.mkdir()
    folder.chmod(FOLDER_MODE)


def write_file(content: bytes | Path, target: Path) -> None:
    """Create ``target`` as a new file with the given bytes, or as a copy that the kernel makes of a file.

    Symbolic links of a source are followed. A file that its owner may execute becomes 0755, every other one 0644.
    """
    if isinstance(content, Path):
        copy_file(content, target)
        program = content.stat().st_mode & stat.S_IXUSR
        target.chmod(PROGRAM_MODE if program else FILE_MODE)
        return
    with open(target, "xb") as handle:
        handle.write(content)
    target.chmod(FILE_MODE)


def copy_file(source: Path, target: Path) -> None:
    """Copy content without reading it into memory: shared blocks where the file system has them (copy_file_range)."""
    with open(source, "rb") as reader, open(target, "xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        done = 0
        try:
            while done < size and (count := os.copy_file_range(reader.fileno(), writer.fileno(), size - done)):
                done += count
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE:
                raise
        except AttributeError:
            pass
        if done == size:
            return
    target.unlink()
    shutil.copyfile(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Repeat ``source`` (a file, a link or a folder) at ``target``: hard links, or copies where linking is refused.

    Folders keep mode, owner and times, so that a server that polls does not reload what did not change.
    """
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for name in entries(source):
            link_tree(source / name, target / name)
        _copy_status(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            copy_file(source, target)
            _copy_status(source, target)


def _copy_status(source: Path, target: Path) -> None:
    known = source.stat()
    with contextlib.suppress(PermissionError):
        os.chown(target, known.st_uid, known.st_gid)
    shutil.copystat(source, target)


def entries(folder: Path) -> list[str]:
    """Names in a folder, sorted; none when it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def files(folder: Path) -> Iterator[str]:
    """Relative POSIX paths of everything in ``folder`` that is not a folder, sorted, without Python's caches."""
    for here, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name != CACHE and name not in links)
        for name in sorted([*names, *links]):
            yield (Path(here) / name).relative_to(folder).as_posix()


def signature(path: Path, *, caches: bool = True) -> tuple[tuple[str, int, int, int], ...]:
    """What tells cheaply whether a file or tree changed: path, kind and mode; size and time of what is no folder.

    Args:
        caches: whether Python's caches count.
    """
    if not os.path.lexists(path):
        return ()
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return ((path.name, found.st_mode, found.st_size, found.st_mtime_ns),)
    inner = [signature(path / name, caches=caches) for name in entries(path) if caches or name != CACHE]
    below = [(f"{path.name}/{name}", *rest) for part in inner for name, *rest in part]
    return ((path.name, found.st_mode, 0, 0), *below)  # type: ignore[arg-type]


def flush(path: Path) -> None:
    """fsync one file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folders(root: Path) -> None:
    """fsync every folder of a tree."""
    for here, _, _ in os.walk(root, topdown=False):
        flush(Path(here))


def remove(path: Path) -> None:
    """Remove a file, a link or a tree; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        for here, _, _ in os.walk(path):
            if not os.access(here, os.R_OK | os.W_OK | os.X_OK):
                Path(here).chmod(stat.S_IRWXU)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (renameat2 with RENAME_EXCHANGE); False where kernel or file system cannot.

    Raises:
        OSError: the kernel can, but refused these paths.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    sys.audit("repo_builder.exchange", str(one), str(other))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        sys.audit("repo_builder.exchanged", str(one), str(other))
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
