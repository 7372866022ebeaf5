"""A stand-in for Triton's compiled tensorrt backend, as a Python-based backend.

It serves the same repository that the compiled backend serves, on the GPU, and refuses what that one refuses, in its
words: ``REFUSALS`` names the source function of every message (public repositories triton-inference-server/
tensorrt_backend, release r24.10, and triton-inference-server/backend). Sequence batching, ragged batches and outputs
that are shape tensors it does not serve and says so.

It needs the ``tensorrt`` package of the version that built the plans in the environment of the server's Python backend,
TensorRT's libraries on LD_LIBRARY_PATH, and the NVIDIA driver, which it calls through ctypes. An instance has one
stream, one execution context for each of its optimization profiles, and memory for their largest shapes, made once.
"""

from __future__ import annotations

import ctypes
import json
import os
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_ulonglong, c_void_p

import numpy as np
import triton_python_backend_utils as pb_utils

REFUSALS = {
    "secondary": (
        "tensorrt_model_instance.cc TensorRTModelInstance::TensorRTModelInstance",
        "{instance} of model {model} must have either zero or or one secondary devices",
    ),
    "kind": (
        "instance_state.cc ModelInstanceState::ModelInstanceState",
        "unable to load model '{model}', TensorRT backend supports only GPU device",
    ),
    "file": ("instance_state.cc ModelInstanceState::Create", "unable to find '{path}' for model instance '{instance}'"),
    "device": ("instance_state.cc ModelInstanceState::InitStreamsAndEvents", "unable to set device for {name}: {text}"),
    "dla": (
        "loader.cc LoadPlan",
        "unable to create TensorRT runtime with DLA Core ID: {core}, available number of DLA cores: {count}",
    ),
    "engine": ("loader.cc LoadPlan", "unable to create TensorRT engine: {text}"),
    "autofill_file": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "unable to load plan file to auto complete config: {path}",
    ),
    "autofill_profile": (
        "model_state.cc ModelState::GetProfileIndices",
        "unable to autofill for '{model}', configuration specified invalid profile {profile} . Number of profiles "
        "supported by TensorRT engine: {count}",
    ),
    "autofill_contradiction": (
        "model_state.cc ModelState::ExtractBatchHintFromIOConfig",
        "unable to autofill for '{model}', model tensor configurations are contradicting each other in terms of "
        "whether batching is supported",
    ),
    "autofill_hint": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "autofill failed for model '{model}': model tensor shape configuration hints for dynamic batching but the "
        "underlying engine doesn't support batching.",
    ),
    "autofill_batch": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "autofill failed for model '{model}': configuration specified max-batch {asked} but TensorRT engine only "
        "supports max-batch {limit}",
    ),
    "autofill_shape_tensor": (
        "model_state.cc ModelState::FixIO",
        "'{name}' is incorrectly specified as a shape tensor.",
    ),
    "context": (
        "instance_state.cc ModelInstanceState::InitOptimizationProfiles",
        "unable to create TensorRT context: {text}",
    ),
    "profile": (
        "instance_state.cc ModelInstanceState::InitOptimizationProfiles",
        "Can not set the specified optimization profile {profile}[{index}] for {instance}. Expected optimization "
        "profile index range 0-{last}",
    ),
    "input_count": (
        "instance_state.cc ModelInstanceState::ValidateIO",
        "unable to load model '{model}', configuration expects {expected} inputs, model provides at most {found}",
    ),
    "input_name": (
        "backend_common.cc CheckAllowedModelInput",
        "unexpected inference input '{name}', allowed inputs are: {allowed}",
    ),
    "output_name": (
        "backend_common.cc CheckAllowedModelOutput",
        "unexpected inference output '{name}', allowed outputs are: {allowed}",
    ),
    "unsupported": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "unsupported datatype {datatype} for {side} '{name}' for model '{model}'",
    ),
    "shape_unmarked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' is a shape tensor but the model configuration doesn't mark it as a shape "
        "tensor.",
    ),
    "shape_marked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' is incorrectly marked as a shape tensor in the model configuration.",
    ),
    "nonlinear_unmarked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' uses a non-linear IO format, but 'is_non_linear_format_io' is incorrectly "
        "set to false in the model configuration.",
    ),
    "nonlinear_marked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' uses a linear IO format, but 'is_non_linear_format_io' is incorrectly set "
        "to true in the model configuration.",
    ),
    "shape_dims": (
        "tensorrt_utils.cc CompareShapeDimsSupported",
        "unable to load model '{instance}', binding '{name}' shape expected by framework {shape} doesn't match model "
        "configuration shape {dims}",
    ),
    "shape_datatype": (
        "instance_state.cc ModelInstanceState::InitializeShapeInputBinding",
        "unexpected datatype TYPE_{found} in engine for shape input '{name}', expecting TYPE_{expected} for {instance}",
    ),
    "datatype": (
        "instance_state.cc ModelInstanceState::InitializeExecuteInputBinding, InitializeExecuteOutputBinding",
        "unexpected datatype TYPE_{found} for inference {side} '{name}', expecting TYPE_{expected} for {instance}",
    ),
    "batch_dimension": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
        "dimension; but shape expected by the model is {shape}",
    ),
    "dims_batching": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (an initial batch dimension because max_batch_size > 0 followed by "
        "the explicit tensor shape, making complete shape {dims})",
    ),
    "dims": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (shape {dims})",
    ),
    "config_shape": (
        "instance_state.cc TRTv3Interface::ConfigureInputDimensions",
        "model configuration specified invalid shape for input '{name}' for model {model}. Error details: {details}",
    ),
    "missing_config": (
        "instance_state.cc ModelInstanceState::InitIOBindingBuffers",
        "expected configuration for {side} '{name}' for {instance}",
    ),
    "rank": (
        "tensorrt_utils.h ValidateDimension",
        "model expected {expected} dimensions but received {found} dimensions",
    ),
    "dimension": (
        "tensorrt_utils.h ValidateDimension",
        "model expected the shape of dimension {axis} to be between {low} and {high} but received {found}",
    ),
    "no_profile": (
        "instance_state.cc ModelInstanceState::GetMostOptimizedProfile",
        "failed to find any Optimization Profile among [{profiles}] to support the requested dimensions (or shape "
        "values), proceeding with first profile.",
    ),
    "request_shape": (
        "instance_state.cc TRTv3Interface::SetBindingDimensions",
        "request specifies invalid shape for input '{name}' for {instance}. Error details: {details}",
    ),
    "set_shape": (
        "instance_state.cc TRTv3Interface::SetBindingDimensions",
        "trt failed to set binding dimension to {shape} for input '{name}' for {instance}",
    ),
    "value_count": (
        "tensorrt_utils.cc ValidateShapeValues",
        "mismatch between the number of shape values. Expecting {expected}. Got {found}",
    ),
    "value": (
        "tensorrt_utils.h CheckShapeTensorInRange",
        "The shape value at index {index} is expected to be in range from {low} to {high}, Got: {found}",
    ),
    "infer_shapes": (
        "instance_state.cc ModelInstanceState::Run",
        "failed to specify the dimensions of all input tensors or values of all input shape tensors",
    ),
    "enqueue": ("instance_state.cc ModelInstanceState::Run", "unable to enqueue for inference {instance}"),
    "split": (
        "backend_output_responder.cc BackendOutputResponder::ProcessTensor",
        "failed to split the output tensor '{name}' in responses: expected batch size of at least {expected} in model "
        "output, got {found}",
    ),
}
# Not the compiled backend's words: what only this stand-in refuses.
LIMITS = {
    "tensorrt": "model '{model}': the tensorrt stand-in finds no TensorRT ({text}); the Python that the server runs "
    "models with needs the tensorrt package, and LD_LIBRARY_PATH the folders of its libraries",
    "driver": "the tensorrt stand-in finds no NVIDIA driver: {text}",
    "sequence": "model '{model}': the tensorrt stand-in does not serve sequence batching",
    "ragged": "model '{model}': the tensorrt stand-in does not serve batch_input, batch_output or ragged batches",
    "shape_output": "model '{model}': the tensorrt stand-in does not serve outputs that are shape tensors ('{name}')",
    "nonlinear": "model '{model}': the tensorrt stand-in serves linear formats alone (tensor '{name}')",
    "bf16": "model '{model}': the tensorrt stand-in does not serve TYPE_BF16 (tensor '{name}')",
    "cuda": "{call} failed: {text}",
}
TYPES = {
    "FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "INT8": "INT8", "UINT8": "UINT8", "INT32": "INT32",
    "INT64": "INT64", "BOOL": "BOOL",
}  # fmt: skip
NUMPY = {
    "FP32": np.float32, "FP16": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64,
    "BOOL": np.bool_,
}  # fmt: skip
DRIVER = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (c_void_p, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
}
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
MOST_GRAPHS = 32


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """Names, datatypes, dims and max_batch_size from the plan; the plan's limits are checked in any case."""
        given = config.as_dict()
        groups = given.get("instance_group") or [{}]
        if groups[0].get("kind") != "KIND_GPU":
            return config
        cuda = Cuda(given["name"], int((groups[0].get("gpus") or [0])[0]))
        path = plan_path(given, cuda)
        try:
            plan = Plan(path, given["name"])
        except EngineError:
            refuse("autofill_file", path=path)
        batch = batch_size(given, plan)
        given["max_batch_size"] = batch
        config.set_max_batch_size(batch)
        if batch > 1 and "sequence_batching" not in given and "dynamic_batching" not in given:
            config.set_dynamic_batching()
        for side, tensors in (("input", plan.inputs), ("output", plan.outputs)):
            complete(given, side, tensors, batch)
        return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.model, self.instance = self.config["name"], args["model_instance_name"]
        self.batched = self.config["max_batch_size"] > 0
        group = instance_group(self.config, self.instance)
        secondary = group.get("secondary_devices", [])
        if len(secondary) > 1:
            refuse("secondary", instance=self.instance, model=self.model)
        if args["model_instance_kind"] != "GPU":
            refuse("kind", model=self.model)
        self.check_limits()
        self.cuda = Cuda(self.instance, int(args["model_instance_device_id"]))
        path = plan_path(self.config, self.cuda)
        if not os.path.exists(path):  # noqa: PTH110
            refuse("file", path=path, instance=self.instance)
        try:
            self.plan = Plan(path, self.model, int(secondary[0].get("device_id", 0)) if secondary else None)
        except EngineError as error:
            refuse("engine", text=str(error))
        self.make_contexts(group.get("profile") or [])
        self.check_config()
        self.make_memory()
        use_graphs = self.config.get("optimization", {}).get("cuda", {}).get("graphs", False)
        self.graphs = {} if use_graphs and not self.allocators and not self.plan.shape_tensors else None
        described = "; ".join(f"{context.name}[{index}]" for index, context in self.contexts.items())
        pb_utils.Logger.log_info(
            f"model '{self.instance}' is served by the tensorrt stand-in of repo_builder: TensorRT "
            f"{self.plan.trt.__version__} on GPU {args['model_instance_device_id']}, compute capability "
            f"{self.cuda.capability}, optimization profiles {described}"
        )

    def finalize(self):
        self.contexts = self.graphs = self.plan = None

    def check_limits(self):
        if "sequence_batching" in self.config:
            raise pb_utils.TritonModelException(LIMITS["sequence"].format(model=self.model))
        ragged = any(tensor.get("allow_ragged_batch") for tensor in self.config["input"])
        if ragged or self.config.get("batch_input") or self.config.get("batch_output"):
            raise pb_utils.TritonModelException(LIMITS["ragged"].format(model=self.model))

    def make_contexts(self, names):
        """One context for each profile of the instance group, by profile index."""
        self.contexts, count = {}, self.plan.engine.num_optimization_profiles
        for name in sorted(set(names)) or ["default"]:
            index = 0 if name == "default" else leading_integer(name)
            if index in self.contexts:
                continue
            made = self.plan.engine.create_execution_context()
            if made is None:
                refuse("context", text=self.plan.log.last)
            if index >= count or not made.set_optimization_profile_async(index, self.cuda.stream):
                refuse("profile", profile=name, index=index, instance=self.instance, last=count - 1)
            self.cuda.synchronize()
            self.contexts[index] = Context(name, made, self.plan.limits(index))
        self.contexts = dict(sorted(self.contexts.items()))

    def check_config(self):
        """What ValidateIO and InitIOBindingBuffers of the compiled backend check, in their order."""
        sides = (("input", self.plan.inputs), ("output", self.plan.outputs))
        if len(self.plan.inputs) < len(self.config["input"]):
            expected, found = len(self.config["input"]), len(self.plan.inputs)
            refuse("input_count", model=self.model, expected=expected, found=found)
        for side, found in sides:
            for tensor in self.config[side]:
                if tensor["name"] not in found:
                    refuse(f"{side}_name", name=tensor["name"], allowed=", ".join(sorted(found)))
        for side, found in sides:
            for tensor in self.config[side]:
                self.check_marks(side, tensor, found[tensor["name"]])
        for side, found in sides:
            for tensor in self.config[side]:
                self.check_tensor(side, tensor, found[tensor["name"]])
        for side, found in sides:
            for name in [name for name in found if name not in [tensor["name"] for tensor in self.config[side]]]:
                refuse("missing_config", side=side, name=name, instance=self.instance)

    def check_marks(self, side, tensor, found):
        words = {"side": side, "name": tensor["name"], "model": self.model}
        if tensor["data_type"].removeprefix("TYPE_") not in TYPES.values():
            refuse("unsupported", datatype=tensor["data_type"], **words)
        if found.is_shape_tensor != bool(tensor.get("is_shape_tensor")):
            refuse("shape_unmarked" if found.is_shape_tensor else "shape_marked", **words)
        if found.linear == bool(tensor.get("is_non_linear_format_io")):
            refuse("nonlinear_marked" if found.linear else "nonlinear_unmarked", **words)
        for limit, met in (
            ("nonlinear", not found.linear),
            ("shape_output", side == "output" and found.is_shape_tensor),
            ("bf16", found.datatype == "BF16"),
        ):
            if met:
                raise pb_utils.TritonModelException(LIMITS[limit].format(model=self.model, name=tensor["name"]))

    def check_tensor(self, side, tensor, found):
        name, dims, expected = tensor["name"], configured_dims(tensor), tensor["data_type"].removeprefix("TYPE_")
        if expected != found.datatype:
            key = "shape_datatype" if found.is_shape_tensor else "datatype"
            types = {"expected": expected, "found": found.datatype or "INVALID"}
            refuse(key, side=side, name=name, instance=self.instance, **types)
        if found.is_shape_tensor:
            wanted = [dim - self.batched for dim in found.shape]
            if dims != wanted:
                refuse("shape_dims", instance=self.instance, name=name, shape=text(found.shape), dims=text(dims))
            return
        words = {"model": self.model, "name": name, "shape": text(found.shape), "rank": len(found.shape)}
        if self.batched and not found.shape:
            refuse("batch_dimension", **words)
        full = [-1, *dims] if self.batched else dims
        if not compatible(found.shape, full):
            refuse("dims_batching" if self.batched else "dims", count=len(full), dims=text(full), **words)
        if side == "input":
            self.limit_context(name, full)

    def limit_context(self, name, dims):
        """The config's fixed dims and max_batch_size narrow what a profile serves."""
        for context in self.contexts.values():
            low, _, high = context.limits[name]
            details = outside(dims, low, high)
            if details:
                refuse("config_shape", name=name, model=self.model, details=details)
            high = [limit if dim == -1 else dim for dim, limit in zip(dims, high, strict=True)]
            if self.batched:
                high[0] = min(high[0], self.config["max_batch_size"])
            context.limits[name][2] = high
            if -1 in self.plan.inputs[name].shape and not context.trt.set_input_shape(name, tuple(high)):
                refuse("set_shape", shape=text(high), name=name, instance=self.instance)

    def make_memory(self):
        """Device and pinned memory for the largest shapes of all contexts."""
        self.host, self.device, self.allocators = {}, {}, {}
        for name, tensor in self.plan.inputs.items():
            sizes = [context.limits[name][2] for context in self.contexts.values()]
            count = max(len(size) if tensor.is_shape_tensor else volume(size) for size in sizes)
            self.add_memory(name, count * tensor.dtype.itemsize, on_device=not tensor.is_shape_tensor)
            for context in self.contexts.values():
                if tensor.is_shape_tensor:
                    values = context.limits[name][2]
                    self.pinned(name, (len(values),), tensor.dtype)[...] = values
                context.trt.set_tensor_address(name, self.device.get(name) or self.host[name])
        for context in self.contexts.values():
            if not context.inferred():
                refuse("infer_shapes")
        for name, tensor in self.plan.outputs.items():
            shapes = [tuple(context.trt.get_tensor_shape(name)) for context in self.contexts.values()]
            if any(dim < 0 for shape in shapes for dim in shape):
                self.allocators[name] = output_allocator(self.plan.trt, self.cuda)
            else:
                largest = max(volume(shape) * tensor.dtype.itemsize for shape in shapes)
                most = max(int(context.trt.get_max_output_size(name)) for context in self.contexts.values())
                self.add_memory(name, max(largest, most), on_device=True)
            for context in self.contexts.values():
                if name in self.allocators:
                    context.trt.set_output_allocator(name, self.allocators[name])
                else:
                    context.trt.set_tensor_address(name, self.device[name])

    def add_memory(self, name, nbytes, *, on_device):
        self.host[name] = self.cuda.host_memory(nbytes)
        if on_device:
            self.device[name] = self.cuda.device_memory(nbytes)

    def pinned(self, name, shape, dtype):
        """The first bytes of a tensor's pinned memory as an array."""
        count = volume(shape)
        buffer = (ctypes.c_ubyte * max(1, count * dtype.itemsize)).from_address(self.host[name])
        return np.frombuffer(buffer, dtype, count).reshape(shape)

    def execute(self, requests):
        self.cuda.make_current()
        responses, groups, feeds = [None] * len(requests), {}, []
        for index, request in enumerate(requests):
            feeds.append({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
            alike = tuple(sorted((name, array.shape[1:]) for name, array in feeds[index].items()))
            groups.setdefault(alike if self.batched else index, []).append(index)
        # Answers are views of pinned memory, read when this call returns: later runs of it would overwrite them.
        keep = len(groups) == 1
        for group in groups.values():
            some = [requests[index] for index in group]
            for index, response in zip(group, self.run([feeds[index] for index in group], some, keep), strict=True):
                responses[index] = response
        return responses

    def run(self, feeds, requests, keep):
        """One run for all requests of a group; where it fails each request is run alone, to fail alone."""
        asked = {name for request in requests for name in request.requested_output_names()}
        try:
            found = self.infer(feeds, [name for name in self.plan.outputs if name in asked])
        except pb_utils.TritonModelException as error:
            if len(feeds) == 1:
                return [failed(str(error))]
            return [self.run([f], [r], False)[0] for f, r in zip(feeds, requests, strict=True)]
        responses, start = [], 0
        for feed, request in zip(feeds, requests, strict=True):
            rows = len(next(iter(feed.values()))) if self.batched else None
            responses.append(self.respond(found, request, start, rows, keep))
            start += rows or 0
        return responses

    def infer(self, feeds, asked):
        """The asked outputs as arrays over pinned memory."""
        rows = sum(len(next(iter(feed.values()))) for feed in feeds) if self.batched else 0
        shapes, values = {}, {}
        for name, tensor in self.plan.inputs.items():
            first = feeds[0][name]
            if tensor.is_shape_tensor:
                values[name] = [rows, *map(int, first[0].reshape(-1))] if self.batched else first.reshape(-1).tolist()
            else:
                shapes[name] = (rows, *first.shape[1:]) if self.batched else first.shape
        index, context = self.choose(shapes, values)
        self.set_shapes(context, shapes, values)
        for name, shape in shapes.items():
            self.upload(name, shape, feeds)
        self.enqueue(index, context, tuple(shapes.items()))
        found = {name: self.download(name, context) for name in asked}
        self.cuda.synchronize()
        return found

    def choose(self, shapes, values):
        """The context whose optimum is nearest, as the compiled backend measures it; the first where none fits."""
        if len(self.contexts) == 1:
            return next(iter(self.contexts.items()))
        distances = {}
        for index, context in self.contexts.items():
            if not any(context.misfit(name, shape) for name, shape in shapes.items()) and not any(
                context.bad_value(name, found) for name, found in values.items()
            ):
                wanted = {**shapes, **values}
                pairs = [
                    pair for name, shape in wanted.items() for pair in zip(context.limits[name][1], shape, strict=True)
                ]
                distances[index] = sum(abs(best - here) for best, here in pairs)
        if not distances:
            profiles = "".join(f" {context.name}[{index}]" for index, context in self.contexts.items())
            pb_utils.Logger.log_error(REFUSALS["no_profile"][1].format(profiles=profiles))
            return next(iter(self.contexts.items()))
        index = min(distances, key=lambda key: (distances[key], key))
        return index, self.contexts[index]

    def set_shapes(self, context, shapes, values):
        for name, found in values.items():
            details = context.bad_value(name, found)
            if details:
                raise pb_utils.TritonModelException(details)
            self.pinned(name, (len(found),), self.plan.inputs[name].dtype)[...] = found
            context.trt.set_tensor_address(name, self.host[name])
        if not values and context.shapes == shapes:
            return
        context.shapes = None
        for name, shape in shapes.items():
            details = context.misfit(name, shape)
            if details:
                refuse("request_shape", name=name, instance=self.instance, details=details)
            if -1 in self.plan.inputs[name].shape and not context.trt.set_input_shape(name, tuple(shape)):
                refuse("set_shape", shape=text(shape), name=name, instance=self.instance)
        if not context.inferred():
            refuse("infer_shapes")
        context.shapes = shapes

    def upload(self, name, shape, feeds):
        """Requests side by side into the pinned memory, and from there to the GPU in one copy."""
        target = self.pinned(name, shape, self.plan.inputs[name].dtype)
        if len(feeds) == 1:
            np.copyto(target, feeds[0][name])
        else:
            np.concatenate([feed[name] for feed in feeds], out=target)
        self.cuda.to_device(self.device[name], self.host[name], target.nbytes)

    def enqueue(self, index, context, shapes):
        """Run the context: once as it is, then recorded as a CUDA graph where the config asks for graphs."""
        key = (index, shapes)
        recorded = self.graphs.get(key) if self.graphs else None
        if recorded:
            self.cuda.call("cuGraphLaunch", recorded, self.cuda.stream)
            return
        if not context.trt.execute_async_v3(self.cuda.stream):
            self.cuda.synchronize()
            refuse("enqueue", instance=self.instance)
        if self.graphs is not None and key not in self.graphs and len(self.graphs) < MOST_GRAPHS:
            self.cuda.synchronize()
            self.graphs[key] = self.cuda.record(lambda: context.trt.execute_async_v3(self.cuda.stream))
            if self.graphs[key] is None:
                pb_utils.Logger.log_warn(f"unable to record CUDA graph for {self.instance}")

    def download(self, name, context):
        tensor = self.plan.outputs[name]
        if name in self.allocators:
            allocator = self.allocators[name]
            shape, source = allocator.shape, allocator.pointer
            if allocator.held > allocator.pinned:
                self.cuda.free_host(self.host.get(name))
                self.host[name], allocator.pinned = self.cuda.host_memory(allocator.held), allocator.held
        else:
            shape, source = tuple(context.trt.get_tensor_shape(name)), self.device[name]
        array = self.pinned(name, shape, tensor.dtype)
        self.cuda.to_host(self.host[name], source, array.nbytes)
        return array

    def respond(self, found, request, start, rows, keep):
        tensors = []
        for name in [name for name in found if name in request.requested_output_names()]:
            array = found[name]
            if rows is not None:
                if start + rows > len(array):
                    words = REFUSALS["split"][1].format(name=name, expected=start + rows, found=len(array))
                    return failed(words)
                array = array[start : start + rows]
            tensors.append(pb_utils.Tensor(name, array if keep else array.copy()))
        return pb_utils.InferenceResponse(tensors)


class Context:
    """An execution context and the limits of its profile: per input [min, opt, max]."""

    def __init__(self, name, trt, limits):
        self.name, self.trt, self.limits, self.shapes = name, trt, limits, None

    def inferred(self):
        """Whether the shapes and values that are set suffice for the outputs' shapes."""
        try:
            return not self.trt.infer_shapes()
        except RuntimeError:
            return False

    def misfit(self, name, shape):
        low, _, high = self.limits[name]
        return outside(shape, low, high)

    def bad_value(self, name, values):
        low, _, high = self.limits[name]
        if len(values) != len(high):
            return REFUSALS["value_count"][1].format(expected=len(high), found=len(values))
        for index, (below, found, above) in enumerate(zip(low, values, high, strict=True)):
            if not below <= found <= above:
                return REFUSALS["value"][1].format(index=index, low=below, high=above, found=found)
        return ""


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
        """[min, opt, max] of every input under a profile: shapes, or the values of a shape tensor."""
        found = {}
        for name, tensor in self.inputs.items():
            if not tensor.is_shape_tensor:
                three = self.engine.get_tensor_profile_shape(name, profile)
            elif hasattr(self.engine, "get_tensor_profile_values"):
                three = self.engine.get_tensor_profile_values(profile, name)
            else:
                three = self.engine.get_profile_shape_input(profile, name)
            found[name] = [[int(number) for number in one] for one in three]
        return found


class Cuda:
    """The primary context of one GPU, made current, and a stream on it."""

    def __init__(self, name, device):
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise pb_utils.TritonModelException(LIMITS["driver"].format(text=error)) from None
        for function, arguments in DRIVER.items():
            getattr(self.library, function).argtypes = arguments
        self.library.cuGetErrorString.argtypes = (c_int, c_void_p)
        number, capability = c_int(), []
        self.context, stream = c_void_p(), c_void_p()
        try:
            self.call("cuInit", 0)
            self.call("cuDeviceGet", byref(number), device)
            self.call("cuDevicePrimaryCtxRetain", byref(self.context), number)
            self.make_current()
            for attribute in (MAJOR, MINOR):
                found = c_int()
                self.call("cuDeviceGetAttribute", byref(found), attribute, number)
                capability.append(str(found.value))
            self.call("cuStreamCreate", byref(stream), 1)
        except pb_utils.TritonModelException as error:
            refuse("device", name=name, text=error)
        self.stream, self.capability = stream.value, ".".join(capability)

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            words = ctypes.c_char_p()
            self.library.cuGetErrorString(code, byref(words))
            told = (words.value or b"unknown error").decode("utf-8", "replace")
            raise pb_utils.TritonModelException(LIMITS["cuda"].format(call=name, text=f"{told} ({code})"))

    def make_current(self):
        self.call("cuCtxSetCurrent", self.context)

    def synchronize(self):
        self.call("cuStreamSynchronize", self.stream)

    def device_memory(self, nbytes):
        pointer = c_uint64()
        self.call("cuMemAlloc_v2", byref(pointer), max(1, nbytes))
        return pointer.value

    def free_device(self, pointer):
        if pointer:
            self.call("cuMemFree_v2", pointer)

    def host_memory(self, nbytes):
        pointer = c_void_p()
        self.call("cuMemHostAlloc", byref(pointer), max(1, nbytes), 0)
        return pointer.value

    def free_host(self, pointer):
        if pointer:
            self.call("cuMemFreeHost", pointer)

    def to_device(self, target, source, nbytes):
        if nbytes:
            self.call("cuMemcpyHtoDAsync_v2", target, source, nbytes, self.stream)

    def to_host(self, target, source, nbytes):
        if nbytes:
            self.call("cuMemcpyDtoHAsync_v2", target, source, nbytes, self.stream)

    def record(self, enqueue):
        """What ``enqueue()`` puts on the stream as an executable graph; None where it cannot be recorded."""
        graph, made = c_void_p(), c_void_p()
        self.call("cuStreamBeginCapture_v2", self.stream, 1)
        done = enqueue()
        code = self.library.cuStreamEndCapture(self.stream, byref(graph))
        if not done or code or self.library.cuGraphInstantiateWithFlags(byref(made), graph, 0):
            return None
        self.library.cuGraphDestroy(graph)
        return made.value


def output_allocator(trt, cuda):
    """Memory for an output whose size is known only once its data is."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self):
            trt.IOutputAllocator.__init__(self)
            self.pointer, self.held, self.pinned, self.shape = cuda.device_memory(1), 1, 0, ()

        def reallocate_output(self, tensor_name, memory, size, alignment):  # noqa: ARG002 (TensorRT's interface)
            if size > self.held:
                cuda.free_device(self.pointer)
                self.pointer, self.held = cuda.device_memory(size), size
            return self.pointer

        def reallocate_output_async(self, tensor_name, memory, size, alignment, stream):  # noqa: ARG002
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name, shape):  # noqa: ARG002
            self.shape = tuple(shape)

    return Allocator()


def tensorrt(model):
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise pb_utils.TritonModelException(LIMITS["tensorrt"].format(model=model, text=error)) from None
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


def instance_group(config, instance):
    """The instance group that an instance belongs to: its name is the group's and a number."""
    groups = {group.get("name"): group for group in config.get("instance_group", [])}
    return groups.get(instance.rpartition("_")[0]) or groups.get(instance) or next(iter(groups.values()), {})


def plan_path(config, cuda):
    """The plan for this GPU: cc_model_filenames, else default_model_filename, else model.plan."""
    filename = config.get("cc_model_filenames", {}).get(cuda.capability) or config.get("default_model_filename")
    return os.path.join(pb_utils.get_model_dir(), os.path.basename(filename or "model.plan"))  # noqa: PTH118, PTH119


def batch_size(given, plan):
    """max_batch_size as the compiled backend completes it, or its refusal."""
    model, count, hint, told = given["name"], plan.engine.num_optimization_profiles, False, 0
    for side, found in (("input", plan.inputs), ("output", plan.outputs)):
        for tensor in given.get(side, []):
            name, dims = tensor["name"], configured_dims(tensor)
            if name not in found:
                refuse(f"{side}_name", name=name, allowed=", ".join(sorted(found)))
            if dims:
                told += 1
                shape = found[name].shape
                batches = shape[0] == dims[0] + 1 if found[name].is_shape_tensor else len(shape) == len(dims) + 1
                if hint and not batches:
                    refuse("autofill_contradiction", model=model)
                hint = hint or batches
    profiles = {profile for group in given.get("instance_group", []) for profile in group.get("profile", [])}
    for profile in sorted(profiles):
        if not 0 <= leading_integer(profile) < count:
            refuse("autofill_profile", model=model, profile=profile, count=count)
    indices = {leading_integer(profile) for profile in profiles} or {0}
    limit = max(min((max_[0] for _, _, max_ in plan.limits(index).values() if max_), default=0) for index in indices)
    if hint and not limit:
        refuse("autofill_hint", model=model)
    if told and not hint:
        limit = 0
    asked = given["max_batch_size"]
    if asked > limit:
        refuse("autofill_batch", model=model, asked=asked, limit=limit)
    return asked or limit


def complete(given, side, tensors, batch):
    """Fill in what the config leaves out of one side's tensors."""
    known = {}
    for name, tensor in tensors.items():
        made = {"name": name, "data_type": f"TYPE_{tensor.datatype or 'INVALID'}"}
        if tensor.is_shape_tensor:
            made["dims"] = [dim - bool(batch) for dim in tensor.shape[:1]]
        else:
            made["dims"] = tensor.shape[1:] if batch else tensor.shape
            if not made["dims"]:
                made.update(dims=[1], reshape={"shape": []})
        known[name] = {**made, "is_shape_tensor": tensor.is_shape_tensor, "is_non_linear_format_io": not tensor.linear}
    if not given.get(side):
        given[side] = list(known.values())
        return
    for tensor in given[side]:
        found = known[tensor["name"]]
        if tensor.get("data_type", "TYPE_INVALID") in ("", "TYPE_INVALID"):
            tensor["data_type"] = found["data_type"]
        if not tensor.get("dims"):
            tensor.update({key: found[key] for key in ("dims", "reshape") if key in found})
        if tensor.get("is_shape_tensor") and not found["is_shape_tensor"]:
            refuse("autofill_shape_tensor", name=tensor["name"])
        tensor["is_shape_tensor"] = found["is_shape_tensor"]


def configured_dims(tensor):
    dims = tensor["reshape"].get("shape", []) if tensor.get("reshape") else tensor.get("dims", [])
    return [int(dim) for dim in dims]


def compatible(shape, dims):
    """Whether a plan's shape and a config's dims agree; -1 agrees with everything."""
    return len(shape) == len(dims) and all(a == b or -1 in (a, b) for a, b in zip(shape, dims, strict=True))


def outside(shape, low, high):
    """Why a shape lies outside the limits, in the compiled backend's words; empty where it does not (-1 fits)."""
    if len(shape) != len(high):
        return REFUSALS["rank"][1].format(expected=len(high), found=len(shape))
    for axis, (below, found, above) in enumerate(zip(low, shape, high, strict=True)):
        if found != -1 and not below <= found <= above:
            return REFUSALS["dimension"][1].format(axis=axis, low=below, high=above, found=found)
    return ""


def leading_integer(name):
    """The number that a profile's name starts with; the server has refused names without one."""
    digits = name.strip()
    while digits and not digits.lstrip("+-").isdigit():
        digits = digits[:-1]
    return int(digits or 0)


def volume(shape):
    return int(np.prod(shape, dtype=np.int64))


def refuse(key, **words):
    raise pb_utils.TritonModelException(REFUSALS[key][1].format(**words))


def failed(words):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(words))


def text(shape):
    return "[" + ",".join(str(dim) for dim in shape) + "]"
