"""The GPU of an instance: its primary context made current, a stream on it, and failures as refusals."""

from __future__ import annotations

import contextlib

from tensorrt_stand_in import cuda
from tensorrt_stand_in.messages import limit, refuse


class Gpu:
    def __init__(self, name, index):
        try:
            cuda.driver()
        except cuda.CudaError as error:
            limit("driver", text=error)
        try:
            self.device = cuda.Device(index)
            self.stream = cuda.Stream()
        except cuda.CudaError as error:
            refuse("device", name=name, text=error)
        self.capability = self.device.compute_capability


@contextlib.contextmanager
def refusals():
    """Failures of the driver inside are refusals of what was asked."""
    try:
        yield
    except cuda.CudaError as error:
        limit("cuda", text=error)
