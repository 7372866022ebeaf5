"""Constants in half precision: rounded to the nearest value, kept finite, and never rounded to zero.

A mask of -3.4e38 would become minus infinity, and a row of it NaN after a softmax. Finite values beyond the range
become half of the largest value, so that a score, or a second mask, can still be added. The smallest values become the
smallest that there is: 1e-12 guards a division, and must not become 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import TensorProto

FLOAT16, BFLOAT16 = 10, 16
NAMES = {FLOAT16: "fp16", BFLOAT16: "bf16"}
ONNX_NAMES = {FLOAT16: "float16", BFLOAT16: "bfloat16"}
LARGEST = {FLOAT16: 65504.0, BFLOAT16: float(np.uint32(0x7F7F0000).view(np.float32))}
SMALLEST = {FLOAT16: 2.0**-24, BFLOAT16: float(np.finfo(np.float32).tiny)}
"""The smallest positive value; for bf16 the smallest normal one."""


def tensor(source: TensorProto, half: int, name: str) -> TensorProto:
    """A float32 TensorProto, its data in memory, as FLOAT16 or BFLOAT16."""
    from onnx import TensorProto, numpy_helper

    made = TensorProto(data_type=half, dims=source.dims, name=name)
    made.raw_data = bits(numpy_helper.to_array(source), half).astype("<u2").tobytes()
    return made


def bits(values: np.ndarray[Any, Any], half: int) -> np.ndarray[Any, Any]:
    """The bits of float32 values in half precision, uint16 of the same shape."""
    inside = finite(np.asarray(values, dtype=np.float32), half)
    if half == FLOAT16:
        return inside.astype(np.float16).view(np.uint16)
    raw = inside.view(np.uint32).astype(np.uint64)
    rounded = (raw + 0x7FFF + ((raw >> 16) & 1)) >> 16
    return np.asarray(np.where(np.isnan(inside), 0x7FC0, rounded), dtype=np.uint16)


def finite(values: np.ndarray[Any, Any], half: int) -> np.ndarray[Any, Any]:
    """Finite values within the range, and none but zero below the smallest; infinities and NaN as they are."""
    size = np.abs(values)
    kept = np.where((size > LARGEST[half]) & np.isfinite(values), np.copysign(LARGEST[half] / 2, values), values)
    kept = np.where((size > 0) & (size < SMALLEST[half]), np.copysign(SMALLEST[half], values), kept)
    return np.asarray(kept, dtype=np.float32)
