"""What a plan's bytes say of its fused graphs where no engine tells it: the text of TensorRT's graph compiler (Myelin).

Since TensorRT-RTX 1 (and wherever else the text is found) a plan holds each fused graph as readable text: the dtype of
every tensor, and whether TF32 was allowed. NVIDIA documents none of it, so it is evidence beside the inspector's word
and never stands alone: a plan without such text yields null.
"""

from __future__ import annotations

import re

_TENSOR = re.compile(rb"\n  tensor=\{[^\n]* type=([a-z0-9_]+) \}")
_TF32 = re.compile(rb"\n  tf32=([01])\n")
_DTYPES = {
    "float": "FP32", "half": "FP16", "bf16": "BF16", "bfloat16": "BF16", "fp8": "FP8", "fp8_e4m3": "FP8",
    "int8": "INT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL", "uint8": "UINT8",
}  # fmt: skip


def read(plan):
    """``{"tensors": {dtype: n}, "tf32": bool}`` over all fused graphs of a plan's bytes; null where it has no text."""
    tensors, allowed = {}, [found == b"1" for found in _TF32.findall(plan)]
    for found in _TENSOR.findall(plan):
        name = found.decode("ascii")
        name = _DTYPES.get(name, name)
        tensors[name] = tensors.get(name, 0) + 1
    if not tensors and not allowed:
        return None
    return {"tensors": dict(sorted(tensors.items())), "tf32": any(allowed)}
