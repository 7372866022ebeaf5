"""A plan opened for running: its tensors, its optimization profiles, contexts over it and the memory they use.

Written for the name-based API that TensorRT 8.6, 10 and 11 share. ``fits`` and ``choose_profile`` are plain functions
over shapes and need neither TensorRT nor a GPU.
"""

from __future__ import annotations

import numpy as np
import runtime
from buffers import Buffers
from profile_values import profile_values
from runtime import Refused

NUMPY = {
    "FP32": np.float32,
    "FP16": np.float16,
    "BF16": np.uint16,  # numpy has no bfloat16: its bits
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class Tensor:
    """An input or output of a plan.

    Attributes:
        dtype: Triton's name; numpy_dtype: what its bytes are here (uint16 for BF16).
        shape: -1 where it is dynamic.
        on_host: TensorRT reads or writes it in host memory (shape tensors).
    """

    def __init__(self, trt, engine, name):
        self.name = name
        self.is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        self.dtype = runtime.dtype(engine.get_tensor_dtype(name))
        if self.dtype not in NUMPY:
            raise Refused(f"tensor {name!r} is {self.dtype}", "one of " + ", ".join(NUMPY))
        self.numpy_dtype = np.dtype(NUMPY[self.dtype])
        self.shape = tuple(runtime.dims(engine.get_tensor_shape(name)))
        self.is_shape_tensor = bool(engine.is_shape_inference_io(name))
        self.on_host = self.is_shape_tensor or engine.get_tensor_location(name) == trt.TensorLocation.HOST
        layout = engine.get_tensor_format(name)
        if layout != trt.TensorFormat.LINEAR:
            raise Refused(f"tensor {name!r} has the format {runtime.name_of(layout)}", "LINEAR")

    def facts(self):
        """The attributes as JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "on_host": self.on_host}


class Plan:
    """A plan that was deserialised on the current device.

    Args:
        trt: the module.
        request: "plan" (path), "plugins" (libraries to load first) and "version_compatible" (let the plan run the
            runtime that it brings along: host code inside the plan).

    Attributes:
        inputs, outputs: Tensor by name, in the plan's order.
        profiles: per optimization profile {input: {"min", "opt", "max"}}: shapes, or values of a shape tensor, None
            where TensorRT does not tell them.

    Raises:
        Refused: with the words of TensorRT's log.
    """

    def __init__(self, trt, request):
        self.trt, self._log = trt, runtime.logger(trt)
        runtime.load_plugins(trt, self._log, request.get("plugins") or [])
        self._runtime = trt.Runtime(self._log)
        if request.get("version_compatible"):
            self._runtime.engine_host_code_allowed = True
        try:
            with open(request["plan"], "rb") as handle:
                content = handle.read()
        except OSError as error:
            raise Refused("the plan {} cannot be read: {}".format(request["plan"], error.strerror)) from None
        self.nbytes = len(content)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise Refused(
                self.failure("{} does not open the plan {}".format(runtime.called(trt), request["plan"])),
                "a plan of this version, for this GPU",
                "build it again here, or open it where it was built",
            )
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        tensors = [Tensor(trt, self.engine, name) for name in names]
        self.inputs = {tensor.name: tensor for tensor in tensors if tensor.is_input}
        self.outputs = {tensor.name: tensor for tensor in tensors if not tensor.is_input}
        self.profiles = [self._profile(index) for index in range(self.engine.num_optimization_profiles)]

    def failure(self, words):
        """The words, and the last error in TensorRT's log."""
        said = self._log.errors()
        return f"{words}: {said[-1]}" if said else words

    def _profile(self, index):
        found = {}
        for name, tensor in self.inputs.items():
            if tensor.is_shape_tensor:
                limits = profile_values(self.engine, name, index)
            else:
                limits = [[int(dim) for dim in dims] for dims in self.engine.get_tensor_profile_shape(name, index)]
            found[name] = dict(zip(("min", "opt", "max"), limits))
        return found


def fits(profile, asked):
    """Why the asked shapes (values for shape tensors), by input, lie outside a profile; empty when they fit."""
    for name, limits in profile.items():
        if name not in asked:
            return f"input {name!r} is missing"
        found, low, high = list(asked[name]), limits["min"], limits["max"]
        if len(found) != len(high):
            return f"input {name!r} has {len(found)} dimensions, the profile {len(high)}"
        if any(above is not None and not below <= here <= above for below, here, above in zip(low, found, high)):
            return f"input {name!r} is {found}, the profile goes from {_told(low)} to {_told(high)}"
    return ""


def _told(values):
    return "[" + ", ".join("?" if value is None else str(value) for value in values) + "]"


def choose_profile(profiles, asked, wanted=None):
    """Index of the profile that holds the asked shapes: the wanted one, else the one whose optimum lies nearest.

    Raises:
        Refused: says for every profile why it does not fit.
    """
    if wanted is not None and not 0 <= wanted < len(profiles):
        raise Refused(f"there is no profile {wanted}: the plan has {len(profiles)}")
    candidates = range(len(profiles)) if wanted is None else [wanted]
    reasons, distances = [], {}
    for index in candidates:
        reason = fits(profiles[index], asked)
        if reason:
            reasons.append(f"profile {index}: {reason}")
        else:
            distances[index] = sum(
                abs(best - here)
                for name, limits in profiles[index].items()
                for best, here in zip(limits["opt"], asked[name])
                if best is not None
            )
    if not distances:
        raise Refused("no optimization profile of the plan fits: " + "; ".join(reasons))
    return min(distances, key=lambda index: (distances[index], index))


def converted(tensor, array):
    """An array as the dtype of a tensor; integers of another width are taken where every value survives.

    Raises:
        Refused: it is something else.
    """
    array = np.asarray(array)
    if array.dtype == tensor.numpy_dtype:
        return np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.kind in "iu" and tensor.numpy_dtype.kind in "iu" and tensor.dtype != "BF16":
        made = array.astype(tensor.numpy_dtype)
        if np.array_equal(made, array):
            return made
        raise Refused(f"input {tensor.name!r} has values that {tensor.dtype} does not hold")
    raise Refused(f"input {tensor.name!r} is {array.dtype}, the plan takes {tensor.dtype}")


class Execution:
    """An execution context on one optimization profile.

    Raises:
        Refused: with the words of TensorRT's log.
    """

    def __init__(self, plan, profile, stream):
        self.plan = plan
        self.context = plan.engine.create_execution_context()
        if self.context is None:
            raise Refused(plan.failure("TensorRT made no execution context"))
        if not self.context.set_optimization_profile_async(profile, stream.handle):
            raise Refused(plan.failure(f"TensorRT refused the optimization profile {profile}"))
        stream.synchronize()

    def prepare(self, arrays):
        """Set the shapes of the inputs and make memory for everything.

        Args:
            arrays: the inputs by name, with their dtypes.
        """
        for name, tensor in self.plan.inputs.items():
            shape = arrays[name].shape
            if (not tensor.is_shape_tensor or -1 in tensor.shape) and not self.context.set_input_shape(name, shape):
                raise Refused(self.plan.failure(f"TensorRT refused the shape {shape} of input {name!r}"))
        # Shape tensors must be readable before the shapes of the outputs are inferred.
        held = {}
        for name, tensor in self.plan.inputs.items():
            if tensor.on_host:
                held[name] = np.ascontiguousarray(arrays[name])
                self.context.set_tensor_address(name, held[name].ctypes.data)
        try:
            lacking = self.context.infer_shapes()
        except RuntimeError as error:
            raise Refused(self.plan.failure(f"TensorRT cannot infer the shapes of the outputs ({error})")) from None
        if lacking:
            raise Refused(self.plan.failure(f"TensorRT lacks the shapes or values of {', '.join(lacking)}"))
        buffers = Buffers(self.plan, self.context, arrays)
        buffers.attach()
        return buffers

    def enqueue(self, stream):
        if not self.context.execute_async_v3(stream.handle):
            raise Refused(self.plan.failure("TensorRT could not run the plan"))


def asked(plan, arrays):
    """What a profile must hold for these inputs: shapes, and the values of shape tensors.

    Raises:
        Refused: an input is missing or unknown.
    """
    unknown = sorted(set(arrays) ^ set(plan.inputs))
    if unknown:
        raise Refused(f"inputs given: {sorted(arrays)}; the plan takes: {sorted(plan.inputs)}")
    return {
        name: [int(value) for value in np.ravel(arrays[name])] if tensor.is_shape_tensor else list(arrays[name].shape)
        for name, tensor in plan.inputs.items()
    }
