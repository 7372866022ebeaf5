"""The CUDA driver through ctypes: device memory, pinned host memory, streams, events, graphs.

Nothing but ``libcuda.so.1`` is needed, which every NVIDIA driver brings: no package, no CUDA toolkit, any driver since
CUDA 11.4. TensorRT's own CUDA runtime works in the primary context of a device, the one that is made current here, so
both share memory, streams and events. Signatures are those of the CUDA Driver API's ``cuda.h``.

This file stands alone: the backend directory of the server has a copy of it for the tensorrt stand-in.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_ulonglong, c_void_p

import numpy as np

_LIBRARY = "libcuda.so.1"
_FUNCTIONS = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_driver = None


class CudaError(Exception):
    """A call to the driver failed; the text names the call, CUDA's name for the failure and its words."""

    def __init__(self, found, expected="", mend=""):
        super().__init__(found)
        self.found, self.expected, self.mend = found, expected, mend


def driver():
    """The driver's library, loaded and initialised once.

    Raises:
        CudaError: there is no driver, or no GPU that it can use.
    """
    global _driver
    if _driver is None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise CudaError(
                f"there is no NVIDIA driver: {_LIBRARY} was not loaded ({error})",
                "a machine with an NVIDIA GPU and its driver",
                "plans run where their GPU is; in a container, give it the GPU (docker run --gpus all)",
            ) from None
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
        _check(library, "cuInit", library.cuInit(0))
        _driver = library
    return _driver


def _check(library, name, code):
    if code:
        texts = []
        for describe in (library.cuGetErrorName, library.cuGetErrorString):
            text = c_char_p()
            describe(code, byref(text))
            texts.append((text.value or b"unknown").decode("utf-8", "replace"))
        raise CudaError(f"{name} failed: {texts[0]} ({code}): {texts[1]}")


def call(name, *arguments):
    """One call of the driver, checked."""
    library = driver()
    _check(library, name, getattr(library, name)(*arguments))


class Device:
    """A GPU whose primary context is current in this thread.

    Attributes:
        name: ``NVIDIA H100 80GB HBM3``.
        compute_capability: ``9.0``.
        memory_bytes: all of its memory.
        cuda: the newest CUDA version that the driver knows, ``13.0``.
    """

    def __init__(self, index=0):
        number, count, found = c_int(), c_int(), c_int()
        call("cuDeviceGetCount", byref(count))
        if not 0 <= index < count.value:
            raise CudaError(f"there is no GPU {index}: the driver shows {count.value}")
        call("cuDeviceGet", byref(number), index)
        self._context = c_void_p()
        call("cuDevicePrimaryCtxRetain", byref(self._context), number)
        self.make_current()
        name = ctypes.create_string_buffer(256)
        call("cuDeviceGetName", name, len(name), number)
        self.name = name.value.decode("utf-8", "replace")
        capability = []
        for attribute in (_MAJOR, _MINOR):
            call("cuDeviceGetAttribute", byref(found), attribute, number)
            capability.append(str(found.value))
        self.compute_capability = ".".join(capability)
        memory = c_size_t()
        call("cuDeviceTotalMem_v2", byref(memory), number)
        self.memory_bytes = memory.value
        call("cuDriverGetVersion", byref(found))
        self.cuda = f"{found.value // 1000}.{found.value % 1000 // 10}"

    def make_current(self):
        call("cuCtxSetCurrent", self._context)

    def facts(self):
        """The attributes as JSON values."""
        names = ("name", "compute_capability", "memory_bytes", "cuda")
        return {name: getattr(self, name) for name in names}


class _Owned:
    """Something of the driver that is given back once, at ``close`` or when it is collected."""

    _release = ""
    handle = None

    def close(self):
        handle, self.handle = self.handle, None
        if handle is not None and _driver is not None:
            getattr(_driver, self._release)(handle)

    def __del__(self):
        self.close()


class DeviceMemory(_Owned):
    """``nbytes`` (at least 1) of GPU memory at ``pointer``."""

    _release = "cuMemFree_v2"

    def __init__(self, nbytes):
        self.nbytes = max(1, int(nbytes))
        address = c_uint64()
        call("cuMemAlloc_v2", byref(address), self.nbytes)
        self.pointer = self.handle = address.value


class PinnedMemory(_Owned):
    """``nbytes`` (at least 1) of page-locked host memory at ``pointer``, which the GPU copies from without a stop."""

    _release = "cuMemFreeHost"

    def __init__(self, nbytes):
        self.nbytes = max(1, int(nbytes))
        address = c_void_p()
        call("cuMemHostAlloc", byref(address), self.nbytes, 0)
        self.pointer = self.handle = address.value
        self._bytes = np.frombuffer((c_ubyte * self.nbytes).from_address(self.pointer), np.uint8)

    def array(self, shape, dtype):
        """The first bytes as an array. It is a view: it must not outlive this object."""
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if count > self.nbytes:
            raise ValueError(f"{count} bytes do not fit into {self.nbytes} of pinned memory")
        return self._bytes[:count].view(dtype).reshape(shape)


class Stream(_Owned):
    _release = "cuStreamDestroy_v2"

    def __init__(self):
        made = c_void_p()
        call("cuStreamCreate", byref(made), _NON_BLOCKING)
        self.handle = made.value

    def synchronize(self):
        call("cuStreamSynchronize", self.handle)

    def wait(self, event):
        """What is put on this stream from now on starts after the event."""
        call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def to_device(self, target, source, nbytes):
        """Copy from a host address to a GPU address."""
        if nbytes:
            call("cuMemcpyHtoDAsync_v2", target, source, nbytes, self.handle)

    def to_host(self, target, source, nbytes):
        """Copy from a GPU address to a host address."""
        if nbytes:
            call("cuMemcpyDtoHAsync_v2", target, source, nbytes, self.handle)

    def clear(self, target, nbytes):
        if nbytes:
            call("cuMemsetD8Async", target, 0, nbytes, self.handle)


class Event(_Owned):
    """A moment on a stream, with its time."""

    _release = "cuEventDestroy_v2"

    def __init__(self):
        made = c_void_p()
        call("cuEventCreate", byref(made), 0)
        self.handle = made.value

    def record(self, stream):
        call("cuEventRecord", self.handle, stream.handle)

    def synchronize(self):
        call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, start):
        elapsed = c_float()
        call("cuEventElapsedTime", byref(elapsed), start.handle, self.handle)
        return elapsed.value


class Graph(_Owned):
    """What ``enqueue()`` puts on a stream, recorded once and launched as one."""

    _release = "cuGraphExecDestroy"

    def __init__(self, stream, enqueue):
        recorded, made, failure = c_void_p(), c_void_p(), None
        call("cuStreamBeginCapture_v2", stream.handle, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        except Exception as error:  # noqa: BLE001 (the capture must end before any error leaves)
            failure = error
        code = driver().cuStreamEndCapture(stream.handle, byref(recorded))
        try:
            if failure is not None:
                raise failure
            _check(driver(), "cuStreamEndCapture", code)
            call("cuGraphInstantiateWithFlags", byref(made), recorded, 0)
            self.handle = made.value
        finally:
            failure = None
            if recorded.value:
                driver().cuGraphDestroy(recorded)

    def launch(self, stream):
        call("cuGraphLaunch", self.handle, stream.handle)
