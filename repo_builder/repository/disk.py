"""What a file system refuses, as one clear error."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator

from repo_builder.errors import DiskFullError, RepositoryError
from repo_builder.repository.layout import Layout

_REFUSED = {
    errno.EROFS: ("the file system is read-only", "build into a folder that can be written"),
    errno.EACCES: ("no permission", "take a folder of your own, or have its permissions changed"),
    errno.EPERM: ("no permission", "take a folder of your own, or have its permissions changed"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "name another folder"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "use shorter names"),
    errno.EBUSY: ("the folder is a mount point or in use by the kernel", "build into a folder below it"),
    errno.EXDEV: ("the folder is a mount point of another file system", "build into a folder below it"),
}


@contextlib.contextmanager
def explained(layout: Layout, needed: int = 0) -> Iterator[None]:
    """Turn what the file system refuses into one clear error; ``needed`` is the size of the new files in bytes."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(layout, error, needed) from error
        reason = _REFUSED.get(error.errno or 0)
        if reason is None:
            raise
        raise RepositoryError(
            f"{error.filename or layout.repository}: {reason[0]} ({error.strerror})", mend=reason[1]
        ) from error


def _full(layout: Layout, error: OSError, needed: int) -> DiskFullError:
    free = shutil.disk_usage(layout.build).free
    what = "the quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
    need = f"{needed:,} bytes of new files, {free:,} bytes free" if needed else f"{free:,} bytes free"
    return DiskFullError(
        f"{what} at {layout.repository.parent}: {need}; the repository stays whole",
        expected="room for the new files beside the old ones until they are exchanged",
        mend="free some space, or build on another disk",
    )
