"""Which TensorRT and which GPU this Python has: ``probe.py REQUEST ANSWER`` (JSON files).

Request: ``module`` (or null). Answer: ``module``, ``version``, ``gpu`` (``{"name", "compute_capability", "driver",
"memory_bytes"}``, or null) and ``no_gpu`` (why there is none).
"""

from __future__ import annotations

import ctypes

import cuda
import runtime


def work(request):
    trt = runtime.load(request)
    try:
        facts = cuda.Device(0).facts()
    except cuda.CudaError as error:
        return {**runtime.describe(trt), "gpu": None, "no_gpu": str(error)}
    gpu = {name: facts[name] for name in ("name", "compute_capability", "memory_bytes")}
    return {**runtime.describe(trt), "gpu": {**gpu, "driver": _driver() or facts["cuda"]}, "no_gpu": ""}


def _driver():
    """The driver's version from NVIDIA's management library; empty where it is not there."""
    text = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(text, len(text)):
            return ""
    except (OSError, AttributeError):
        return ""
    return text.value.decode("ascii", "replace")


if __name__ == "__main__":
    runtime.main(work)
