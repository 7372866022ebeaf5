"""The one table of dtypes (Triton, numpy, ONNX, torch, TensorRT) and the value TensorSpec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repo_builder.errors import UnsupportedDtypeError

Shape = tuple["int | str", ...]
"""Sizes of the axes; a string is a symbolic dim, named as the file or the user names it."""


@dataclass(frozen=True)
class DType:
    """One dtype under all its names.

    Attributes:
        triton: name in the inference protocol (``FP32``); ModelConfig says ``TYPE_FP32``, for BYTES ``TYPE_STRING``.
        numpy: numpy's name, ``object`` for BYTES; None where numpy has none (BF16).
        onnx: ``onnx.TensorProto.DataType`` number.
        torch: torch's name without ``torch.``; None where torch has none.
        tensorrt: ``tensorrt.DataType`` name; None where a plan cannot have it.
    """

    triton: str
    numpy: str | None
    onnx: int
    torch: str | None
    tensorrt: str | None

    @property
    def config(self) -> str:
        return "TYPE_STRING" if self.triton == "BYTES" else f"TYPE_{self.triton}"


# Sources: server docs/user_guide/model_configuration.md (datatypes), onnx.proto3 (TensorProto.DataType).
DTYPES: tuple[DType, ...] = (
    DType("BOOL", "bool", 9, "bool", "BOOL"),
    DType("UINT8", "uint8", 2, "uint8", "UINT8"),
    DType("UINT16", "uint16", 4, "uint16", None),
    DType("UINT32", "uint32", 12, "uint32", None),
    DType("UINT64", "uint64", 13, "uint64", None),
    DType("INT8", "int8", 3, "int8", "INT8"),
    DType("INT16", "int16", 5, "int16", None),
    DType("INT32", "int32", 6, "int32", "INT32"),
    DType("INT64", "int64", 7, "int64", "INT64"),
    DType("FP16", "float16", 10, "float16", "HALF"),
    DType("FP32", "float32", 1, "float32", "FLOAT"),
    DType("FP64", "float64", 11, "float64", None),
    DType("BF16", None, 16, "bfloat16", "BF16"),
    DType("BYTES", "object", 8, None, None),
)
_BY_TRITON = {d.triton: d for d in DTYPES}
_BY_CONFIG = {d.config: d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES if d.numpy}
_BY_ONNX = {d.onnx: d for d in DTYPES}
_BY_TORCH = {d.torch: d for d in DTYPES if d.torch}
_BY_TENSORRT = {d.tensorrt: d for d in DTYPES if d.tensorrt}


def dtype(name: str) -> DType:
    """The dtype of a Triton (``FP32``), config (``TYPE_FP32``), numpy (``float32``) or torch (``torch.float32``) name.

    Raises:
        UnsupportedDtypeError: Triton has no such dtype.
    """
    bare = name.removeprefix("torch.")
    for table in (_BY_TRITON, _BY_CONFIG, _BY_NUMPY, _BY_TORCH):
        if bare in table:
            return table[bare]
    raise _unsupported(name)


def from_numpy(array_dtype: Any) -> DType:
    """The dtype of a numpy dtype; bytes and str arrays are BYTES."""
    array_dtype = np.dtype(array_dtype)
    if array_dtype.kind in "SUO":
        return _BY_TRITON["BYTES"]
    found = _BY_NUMPY.get(array_dtype.name)
    if found is None:
        raise _unsupported(str(array_dtype))
    return found


def from_onnx(elem_type: int, tensor: str = "") -> DType:
    """The dtype of an ``onnx.TensorProto.DataType`` number; ``tensor`` is named in the error."""
    found = _BY_ONNX.get(elem_type)
    if found is None:
        import onnx

        known = elem_type in onnx.TensorProto.DataType.values()
        raise _unsupported(
            onnx.TensorProto.DataType.Name(elem_type) if known else f"ONNX element type {elem_type}", tensor
        )
    return found


def from_tensorrt(name: str) -> DType:
    """The dtype of a ``tensorrt.DataType`` name."""
    found = _BY_TENSORRT.get(name)
    if found is None:
        raise _unsupported(f"TensorRT {name}")
    return found


def _unsupported(name: str, tensor: str = "") -> UnsupportedDtypeError:
    of = f"tensor '{tensor}' has dtype {name}" if tensor else f"dtype {name}"
    return UnsupportedDtypeError(
        f"{of}, which Triton does not have",
        expected="one of " + ", ".join(d.triton for d in DTYPES),
        mend="cast the tensor to one of these inside the model and export it again",
    )


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: name, Triton dtype name (``FP32``), shape with the batch dimension where there is one."""

    name: str
    dtype: str
    shape: Shape

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as Triton writes it: -1 for every symbolic dim."""
        return tuple(d if isinstance(d, int) else -1 for d in self.shape)

    @property
    def numpy(self) -> Any:
        """The numpy dtype of arrays of this tensor."""
        name = _BY_TRITON[self.dtype].numpy
        if name is None:
            raise UnsupportedDtypeError(
                f"tensor '{self.name}' has dtype {self.dtype}, which numpy does not have",
                expected="a dtype that samples and answers can be held in",
                mend="cast the tensor to FP32 inside the model",
            )
        return np.dtype(name)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(d) for d in self.shape)}]"
