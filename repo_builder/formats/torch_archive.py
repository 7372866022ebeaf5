"""The zip archives of torch.save, TorchScript and torch.export: opened here first, before any loader of torch's.

Only archives that every zip reader understands alike are taken: one root folder, no repeated or hidden names, no
leading or trailing bytes. What was checked is then what torch reads.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats import pickle_scan

_PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_READ_LIMIT = 512 * 1024 * 1024


class TorchArchive:
    """The members of one archive by name, without the root folder.

    Args:
        source: a path, or the bytes of an archive inside an archive.
        where: what to call it in messages.

    Raises:
        SourceCorruptError: no whole zip archive.
        UnsafeSourceError: an archive that zip readers understand differently.
    """

    def __init__(self, source: Path | bytes, where: str) -> None:
        self.where = where
        stream: IO[bytes] | Path = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise SourceCorruptError(
                f"{where} is no whole zip archive ({error})",
                expected="an archive that torch wrote",
                mend="the file is truncated or of another kind: save or copy it again",
            ) from error
        infos = self._zip.infolist()
        names = [info.filename for info in infos]
        roots = {name.split("/", 1)[0] if "/" in name else "" for name in names}
        self.root = f"{roots.pop()}/" if len(roots) == 1 and "" not in roots else ""
        odd = self._oddity(infos)
        if odd:
            raise UnsafeSourceError(
                f"{where} is an unusual zip archive: {odd}",
                expected="an archive as torch writes it",
                mend="save the model again",
            )
        self.members = {name.removeprefix(self.root): info for name, info in zip(names, infos, strict=True)}

    def _oddity(self, infos: list[zipfile.ZipInfo]) -> str:
        names = [info.filename for info in infos]
        if not names:
            return "it has no members"
        if len(set(names)) != len(names):
            return "a name occurs twice"
        if self._zip.comment or min(info.header_offset for info in infos) != 0:
            return "bytes before or after the members"
        for info in infos:
            parts = info.filename.split("/")
            if info.filename != info.orig_filename or not info.filename.isascii() or "\\" in info.filename:
                return f"the name {info.orig_filename!r}"
            if ".." in parts or "" in parts:
                return f"the name {info.filename!r}"
            if info.flag_bits & 1 or info.compress_type not in _PLAIN_METHODS:
                return f"{info.filename} is encrypted or packed in an unknown way"
        return ""

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def under(self, folder: str) -> list[str]:
        """Names of the members that start with ``folder``."""
        return [name for name in self.members if name.startswith(folder)]

    def read(self, name: str) -> bytes:
        """A member's bytes.

        Raises:
            SourceCorruptError: it is missing, damaged or larger than 512 MiB.
        """
        if name not in self.members:
            raise SourceCorruptError(f"{self.where} has no member {name}", mend="save the model again")
        if self.members[name].file_size > _READ_LIMIT:
            raise SourceCorruptError(f"{self.where}:{name} is larger than {_READ_LIMIT} bytes")
        try:
            return self._zip.read(self.members[name])
        except Exception as error:
            raise SourceCorruptError(
                f"{self.where}:{name} is damaged ({error})", mend="save or copy the file again"
            ) from error

    def check_pickles(self, allowed: Callable[[str], bool] = pickle_scan.tensors_only) -> None:
        """Check every ``.pkl`` member.

        Raises:
            UnsafeSourceError, SourceCorruptError: as :func:`pickle_scan.check`.
        """
        for name in self.members:
            if name.endswith(".pkl"):
                pickle_scan.check(io.BytesIO(self.read(name)), f"{self.where}:{name}", allowed)

    def pickled_names(self) -> list[str]:
        """The globals that ``data.pkl`` names."""
        return pickle_scan.names(io.BytesIO(self.read("data.pkl")), f"{self.where}:data.pkl")

    def close(self) -> None:
        self._zip.close()

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
