"""A plan opened on the current GPU: TensorRT, its log, the server's options for it, and what the plan says."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import triton_python_backend_utils as pb_utils

from tensorrt_stand_in.messages import limit, refuse
from tensorrt_stand_in.profile_values import profile_values

TYPES = {
    "FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "INT8": "INT8", "UINT8": "UINT8", "INT32": "INT32",
    "INT64": "INT64", "BOOL": "BOOL",
}  # fmt: skip
NUMPY = {
    "FP32": np.float32, "FP16": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64,
    "BOOL": np.bool_,
}  # fmt: skip


class EngineError(Exception):
    """TensorRT did not open the plan; its last error."""


class Tensor:
    """What a plan says of one input or output; datatype is Triton's name, None for a type that Triton lacks."""

    def __init__(self, trt, engine, name):
        self.is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        self.datatype = TYPES.get(engine.get_tensor_dtype(name).name)
        self.dtype = np.dtype(NUMPY.get(self.datatype, np.uint8))
        self.shape = [int(dim) for dim in engine.get_tensor_shape(name)]
        self.is_shape_tensor = bool(engine.is_shape_inference_io(name))
        self.linear = engine.get_tensor_format(name) == trt.TensorFormat.LINEAR


class Plan:
    """A plan, opened on the current device."""

    def __init__(self, path, model, dla_core=None):
        self.trt = trt = tensorrt(model)
        self.log = logger(trt)
        options = server_options()
        trt.init_libnvinfer_plugins(self.log, "")
        for plugin in filter(None, options.get("plugins", "").split(";")):
            try:
                ctypes.CDLL(plugin)
            except OSError as error:
                pb_utils.Logger.log_error(f"unable to load plugin library: {error}")
        self.runtime = trt.Runtime(self.log)
        if options.get("version-compatible", "").lower() in ("true", "on", "1"):
            self.runtime.engine_host_code_allowed = True
        if dla_core is not None:
            if dla_core >= self.runtime.num_DLA_cores:
                refuse("dla", core=dla_core, count=self.runtime.num_DLA_cores)
            self.runtime.DLA_core = dla_core
        try:
            with open(path, "rb") as handle:
                self.engine = self.runtime.deserialize_cuda_engine(handle.read())
        except OSError as error:
            raise EngineError(str(error)) from None
        if self.engine is None:
            raise EngineError(self.log.last)
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        tensors = {name: Tensor(trt, self.engine, name) for name in names}
        self.inputs = {name: tensor for name, tensor in tensors.items() if tensor.is_input}
        self.outputs = {name: tensor for name, tensor in tensors.items() if not tensor.is_input}
        self.shape_tensors = [name for name, tensor in tensors.items() if tensor.is_shape_tensor]

    def limits(self, profile):
        """[min, opt, max] of every input under a profile: shapes, or the values of a shape tensor.

        A value is None where TensorRT does not tell it.
        """
        found = {}
        for name, tensor in self.inputs.items():
            if tensor.is_shape_tensor:
                found[name] = profile_values(self.engine, name, profile)
            else:
                three = self.engine.get_tensor_profile_shape(name, profile)
                found[name] = [[int(size) for size in shape] for shape in three]
        return found


def tensorrt(model):
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        limit("tensorrt", model=model, text=error)
    return trt


def logger(trt):
    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity, message):
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.last = message
                pb_utils.Logger.log_error(message)
            elif severity == trt.ILogger.Severity.WARNING:
                pb_utils.Logger.log_warn(message)

    return Logger()


def server_options():
    """What the server's command line says under ``--backend-config=tensorrt,NAME=VALUE``."""
    found, pid = {}, os.getppid()
    for _ in range(4):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as handle:
                words = handle.read().split("\0")
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
                pid = int(handle.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
        if os.path.basename(words[0]) == "tritonserver":  # noqa: PTH119
            for option, following in zip(words, [*words[1:], ""], strict=True):
                setting = following if option == "--backend-config" else option.partition("--backend-config=")[2]
                backend, _, pair = setting.partition(",")
                if backend == "tensorrt" and "=" in pair:
                    name, _, value = pair.partition("=")
                    found[name] = value
            break
    return found
