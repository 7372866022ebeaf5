"""The first bytes of a plan, read without TensorRT: whose plan it is, and of which version.

NVIDIA documents none of this. The magic is what public readers of plans look for (``ftrt``); version and size were
read off plans whose builder was known. What is not as expected is None, never a guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from repo_builder.errors import SourceCorruptError

_MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_SIZE_AT, _VERSION_AT, _HEAD = 16, 24, 32


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's head tells.

    Attributes:
        module: ``tensorrt`` or ``tensorrt_rtx``: whose plan it is.
        version: of the TensorRT that built it, ``8.6.1.6``; None where the bytes look like no version.
    """

    module: str
    version: str | None


def is_plan(path: Path) -> bool:
    """Whether a file begins as a plan does."""
    try:
        with open(path, "rb") as handle:
            return handle.read(4) in _MAGIC
    except OSError:
        return False


def read(path: Path) -> PlanHeader:
    """The header of a plan.

    Raises:
        SourceCorruptError: no plan, or one that was cut off.
    """
    size = path.stat().st_size
    with open(path, "rb") as handle:
        head = handle.read(_HEAD)
    module = _MAGIC.get(head[:4])
    if module is None:
        raise SourceCorruptError(
            f"{path} is no TensorRT plan: it begins with {head[:4]!r}",
            expected="a serialized engine (it begins with ftrt)",
            mend="name the file that TensorRT's builder or trtexec --saveEngine wrote; TensorRT below 8 wrote others",
        )
    declared = struct.unpack_from("<Q", head, _SIZE_AT)[0] if len(head) == _HEAD else None
    if declared is None or (module == "tensorrt_rtx" and declared > size):
        raise SourceCorruptError(
            f"{path} is cut off: it has {size} bytes" + (f" of {declared}" if declared else ""),
            expected="a whole plan",
            mend="copy or build it again",
        )
    return PlanHeader(module, _version(head[_VERSION_AT : _VERSION_AT + 4]))


def _version(numbers: bytes) -> str | None:
    return ".".join(map(str, numbers)) if 0 < numbers[0] < 64 else None
