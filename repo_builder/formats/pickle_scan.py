"""Reading the opcodes of a pickle without running it: PyTorch files may name tensors and nothing else.

The list of names is shorter than that of ``torch.load(weights_only=True)``, which stays the second guard where torch
opens a file. Opcodes that compose names at run time (STACK_GLOBAL, INST, EXT) are refused whatever they would name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO

from repo_builder.errors import SourceCorruptError, UnsafeSourceError

_TENSOR_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._tensor._rebuild_from_type_v2",
    "__builtin__.set",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "torch.storage.UntypedStorage",
    "torch.serialization._get_layout",
}
_STORAGES = (
    *("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
    *("ComplexDouble", "ComplexFloat"),
)
_TENSOR_NAMES |= {f"torch.{name}Storage" for name in _STORAGES}
_TENSOR_NAMES |= {f"torch.{s}{bits}" for s, b in (("float", "16 32 64"), ("int", "8 16 32 64")) for bits in b.split()}
_TENSOR_NAMES |= {"torch.bfloat16", "torch.uint8", "torch.bool", "torch.complex64", "torch.complex128"}
_COMPOSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_LEGACY_PICKLES = 5
_SAFE = "save the weights as safetensors, or the program with torch.export.save"


def tensors_only(name: str) -> bool:
    """Whether a global is one that rebuilds tensors."""
    return name in _TENSOR_NAMES


def check(stream: IO[bytes], where: str, allowed: Callable[[str], bool] = tensors_only) -> None:
    """Check one pickle, from the stream's position to its STOP.

    Raises:
        UnsafeSourceError: it names a global that is not ``allowed``, or composes one.
        SourceCorruptError: it is no whole pickle.
    """
    for name in names(stream, where):
        if not allowed(name):
            raise UnsafeSourceError(
                f"{where} is a pickle that would run {name} when loaded", expected="tensors alone", mend=_SAFE
            )


def names(stream: IO[bytes], where: str) -> list[str]:
    """The globals that a pickle names, in order, as ``module.name``; the stream is read to the STOP, nothing runs."""
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                found.append(str(argument).replace(" ", "."))
            elif opcode.name in _COMPOSED:
                found.append(f"a name that the opcode {opcode.name} composes")
    except Exception as error:
        raise SourceCorruptError(
            f"{where} is no whole pickle ({error})", expected="a file that torch.save wrote", mend="copy it again"
        ) from error
    return found


def check_legacy(path: Path) -> None:
    """Check a file in the form that ``torch.save`` wrote before 1.6: five pickles, then raw tensors.

    Raises:
        UnsafeSourceError, SourceCorruptError: as :func:`check`.
    """
    with open(path, "rb") as handle:
        for _ in range(_LEGACY_PICKLES):
            check(handle, str(path))
