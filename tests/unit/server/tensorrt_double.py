"""A double of TensorRT and of the driver, on the CPU: the stand-in's own logic runs over it where there is no GPU.

A plan is JSON: {"op", "inputs": {name: [TensorRT's dtype, shape]}, "outputs", "shape_tensors", "profiles": [{input:
{"min", "opt", "max"}}]}. The ops are those of ``tests/gpu/test_plans.py``: ``dense``, ``nonzero`` and ``reshape``. It
has the names of the Python API of 8.6 that the stand-in calls, and no more; the same tests run on a GPU with the real
one.
"""
# ruff: noqa: ARG002, ARG005 (another's interface)

from __future__ import annotations

import ctypes
import enum
import json
import types
from typing import Any

import numpy as np

DTYPES = {"FLOAT": np.dtype(np.float32), "INT32": np.dtype(np.int32)}
DataType = enum.Enum("DataType", ["FLOAT", "INT32"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
TensorFormat = enum.Enum("TensorFormat", ["LINEAR"])


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class IOutputAllocator:
    pass


class Runtime:
    num_DLA_cores = 0

    def __init__(self, log: Any) -> None:
        self._log = log

    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        try:
            return Engine(json.loads(content))
        except ValueError:
            self._log.log(ILogger.Severity.ERROR, "Version tag does not match")
            return None


class Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.tensors = plan, {**plan["inputs"], **plan["outputs"]}
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.plan["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name][0]]

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.tensors[name][1])

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.LINEAR

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.plan.get("shape_tensors", [])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return [self.plan["profiles"][profile][name][kind] for kind in ("min", "opt", "max")]

    def get_profile_shape_input(self, profile: int, name: str) -> list[list[int]]:
        """8.6's tells as many values as the tensor has dimensions."""
        return [values[: len(self.tensors[name][1])] for values in self.get_tensor_profile_shape(name, profile)]

    def create_execution_context(self) -> ExecutionContext:
        return ExecutionContext(self.plan, self)


class ExecutionContext:
    def __init__(self, plan: dict[str, Any], engine: Engine) -> None:
        self._plan, self._engine, self._profile = plan, engine, 0
        self._shapes = {name: list(shape) for name, (_, shape) in plan["inputs"].items()}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return profile < len(self._plan["profiles"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = list(shape)
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return bool(address)

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def get_tensor_shape(self, name: str) -> list[int]:
        if name in self._shapes:
            return self._shapes[name]
        if self._plan["op"] == "dense":
            return [self._shapes["X"][0], 32]
        if self._plan["op"] == "nonzero":
            return [2, -1]
        return self._array("SIZE").tolist() if "SIZE" in self._addresses else [-1, -1]

    def get_max_output_size(self, name: str) -> int:
        return 1

    def execute_async_v3(self, stream: int) -> bool:
        found = self._array("X")
        if self._plan["op"] == "dense":
            from tests.gpu.test_plans import expected

            self._array("Y")[...] = expected(found)
        elif self._plan["op"] == "reshape":
            shape = self.get_tensor_shape("Y")
            memory = self._allocators["Y"].reallocate_output("Y", 0, 4 * int(np.prod(shape)), 256)
            self._allocators["Y"].notify_shape("Y", shape)
            self._addresses["Y"] = memory
            self._array("Y")[...] = found.reshape(self._array("SIZE")) * 2
        else:
            places = np.array(np.nonzero(found), np.int32)
            allocator = self._allocators["WHERE"]
            self._addresses["WHERE"] = allocator.reallocate_output("WHERE", 0, places.nbytes, 256)
            allocator.notify_shape("WHERE", places.shape)
            view(self._addresses["WHERE"], places.shape, places.dtype)[...] = places
        return True

    def _array(self, name: str) -> Any:
        return view(self._addresses[name], self.get_tensor_shape(name), DTYPES[self._engine.tensors[name][0]])


def view(address: int, shape: Any, dtype: np.dtype[Any]) -> Any:
    count = int(np.prod(shape))
    return np.frombuffer((ctypes.c_ubyte * (count * dtype.itemsize)).from_address(address), dtype).reshape(shape)


class Device:
    """The double of ``cuda.Device``; the classes after it are those of the same module, over host memory."""

    compute_capability = "9.0"

    def __init__(self, index: int) -> None:
        assert index == 0

    def make_current(self) -> None:
        pass


class HostMemory:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(1, nbytes)
        self._held = ctypes.create_string_buffer(self.nbytes)
        self.pointer = ctypes.addressof(self._held)

    def array(self, shape: Any, dtype: Any) -> Any:
        return view(self.pointer, shape, np.dtype(dtype))

    def close(self) -> None:
        pass


class Stream:
    """What is put on it is done at once."""

    handle = 1

    def synchronize(self) -> None:
        pass

    def to_device(self, target: int, source: int, nbytes: int) -> None:
        ctypes.memmove(target, source, nbytes)

    to_host = to_device


class Graph:
    def __init__(self, stream: Stream, enqueue: Any) -> None:
        self._enqueue = enqueue

    def launch(self, stream: Stream) -> None:
        self._enqueue()


CUDA = {
    "driver": lambda: None,
    "Device": Device,
    "Stream": Stream,
    "DeviceMemory": HostMemory,
    "PinnedMemory": HostMemory,
    "Graph": Graph,
}


def module() -> types.ModuleType:
    """The double as the module ``tensorrt``."""
    made = types.ModuleType("tensorrt")
    for part in (DataType, TensorIOMode, TensorFormat, ILogger, IOutputAllocator, Runtime):
        setattr(made, part.__name__, part)
    made.ICudaEngine = Engine  # type: ignore[attr-defined]
    made.__version__ = "8.6.1"  # type: ignore[attr-defined]
    made.init_libnvinfer_plugins = lambda log, namespace: True  # type: ignore[attr-defined]
    return made
