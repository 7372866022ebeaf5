"""A stand-in for Triton's compiled onnxruntime backend, as a Python-based backend.

It serves the same repository that the compiled backend serves, and refuses what that one refuses, in its words:
``REFUSALS`` names the source function of every message (public repositories triton-inference-server/
onnxruntime_backend and triton-inference-server/backend). It runs on the CPU; implicit state, batch_input and ragged
batches it does not serve and says so.
"""

from __future__ import annotations

import json
import os
import re

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

REFUSALS = {
    "file": (
        "onnxruntime.cc ModelState::LoadModel",
        "unable to find '{path}' for model instance '{model}'",
    ),
    "accelerator": (
        "onnxruntime.cc ModelState::LoadModel",
        "unknown Execution Accelerator '{name}' is requested",
    ),
    "runtime": ("onnxruntime_utils.h RETURN_IF_ORT_ERROR", "onnx runtime error {code}: {text}"),
    "execution_mode": (
        "onnxruntime.cc ModelState::ModelState",
        "Invalid configuration value provided. Expected values for  execution_mode are 0 or 1 but got {value} .",
    ),
    "integer": ("backend_common.cc ParseIntValue", "failed to convert '{value}' to integral number"),
    "boolean": ("backend_common.cc ParseBoolValue", "failed to convert '{value}' to boolean"),
    "onnx_type": (
        "onnxruntime_utils.cc InputOutputInitializerInfos",
        "Unsupported ONNX Type '{found}' for I/O '{name}', expected 'ONNX_TYPE_TENSOR'.",
    ),
    "autofill_batch": (
        "onnxruntime.cc ModelState::AutoCompleteMaxBatch",
        "autofill failed for model '{model}': model does not support batching while non-zero max_batch_size is "
        "specified",
    ),
    "input_count": (
        "onnxruntime.cc ModelInstanceState::ValidateInputs",
        "unable to load model '{model}', configuration expects {expected} inputs, model provides {found}",
    ),
    "optional_batching": (
        "onnxruntime.cc ModelInstanceState::ValidateInputs",
        "unable to load model '{model}', optional input '{name}' is not supported for models that support batching",
    ),
    "input_name": (
        "backend_common.cc CheckAllowedModelInput",
        "unexpected inference input '{name}', allowed inputs are: {allowed}",
    ),
    "output_name": (
        "backend_common.cc CheckAllowedModelOutput",
        "unexpected inference output '{name}', allowed outputs are: {allowed}",
    ),
    "datatype": (
        "onnxruntime.cc ModelInstanceState::ValidateInputs, ValidateOutputs",
        "unable to load model '{model}', configuration expects datatype {expected} for {side} '{name}', model provides "
        "TYPE_{found}",
    ),
    "scalar": (
        "onnxruntime.cc ModelInstanceState::ValidateInputs, ValidateOutputs",
        "unable to load model '{model}', scalar tensor '{name}', should only provide 1 in the model configuration when "
        "the model doesn't support batching. Model configuration provided: {dims}.",
    ),
    "batch_dimension": (
        "onnxruntime_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
        "dimension and the first dimension must be -1; but shape expected by the model is {shape}",
    ),
    "dims_batching": (
        "onnxruntime_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (an initial batch dimension because max_batch_size > 0 followed by "
        "the explicit tensor shape, making complete shape {dims})",
    ),
    "dims": (
        "onnxruntime_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (shape {dims})",
    ),
    "control_name": (
        "onnxruntime.cc ModelInstanceState::ValidateBooleanSequenceControl, ValidateTypedSequenceControl",
        "configuration specified sequence control '{name}', but model does not provide that input",
    ),
    "control_dims": (
        "onnxruntime.cc ModelInstanceState::ValidateBooleanSequenceControl, ValidateTypedSequenceControl",
        "unable to load model '{model}', sequence control '{name}' in model has dims {dims} but dims [1] is expected",
    ),
    "control_datatype": (
        "onnxruntime.cc ModelInstanceState::ValidateBooleanSequenceControl, ValidateTypedSequenceControl",
        "unable to load model '{model}', sequence control '{name}', the model expects data-type {found} but the model "
        "configuration specifies data-type {expected}",
    ),
    "split": (
        "backend_output_responder.cc BackendOutputResponder::ProcessTensor",
        "failed to split the output tensor '{name}' in responses: expected batch size of at least {expected} in model "
        "output, got {found}",
    ),
}
# Not the compiled backend's words: what only this stand-in refuses.
LIMITS = {
    "state": "model '{model}': the onnxruntime stand-in does not serve implicit state (sequence_batching.state)",
    "ragged": "model '{model}': the onnxruntime stand-in does not serve batch_input, batch_output or ragged batches",
    "bf16": "model '{model}': the onnxruntime stand-in does not serve TYPE_BF16 (tensor '{name}')",
    "text": "input '{name}' is not UTF-8, which the onnxruntime stand-in needs",
}
# tritonserver's default of --backend-config=default-max-batch-size
DEFAULT_MAX_BATCH_SIZE = 4
TRITON_TYPES = {
    "float": "FP32", "double": "FP64", "float16": "FP16", "bfloat16": "BF16", "bool": "BOOL", "string": "STRING",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
ONNX_NAMES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"}
ONNX_KINDS = {"seq": "ONNX_TYPE_SEQUENCE", "map": "ONNX_TYPE_MAP", "sparse_tensor": "ONNX_TYPE_SPARSETENSOR"}


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """Names, datatypes, dims and max_batch_size from the file, where inputs or outputs are not given."""
        given = config.as_dict()
        known = bool(given["input"]) or bool(given.get("batch_input")), bool(given["output"])
        if all(known):
            return config
        session = open_session(given)
        sides = {"input": infos(session.get_inputs()), "output": infos(session.get_outputs())}
        batches = all(dims[:1] == [-1] for side in sides.values() for _, dims in side.values())
        if not batches and given["max_batch_size"]:
            refuse("autofill_batch", model=given["name"])
        if batches:
            config.set_max_batch_size(given["max_batch_size"] or DEFAULT_MAX_BATCH_SIZE)
            if given["max_batch_size"] > 1 and "sequence_batching" not in given:
                config.set_dynamic_batching()
        for (side, tensors), complete in zip(sides.items(), known, strict=True):
            if not complete:
                given[side] = [described(name, *info, batched=batches) for name, info in tensors.items()]
        return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.name, self.batched = self.config["name"], self.config["max_batch_size"] > 0
        self.session = open_session(self.config)
        self.scalars = {}
        self.check_limits()
        self.inputs = self.check_inputs()
        self.check_outputs()
        self.outputs = [output["name"] for output in self.config["output"]]
        pb_utils.Logger.log_info(
            f"model '{args['model_instance_name']}' is served by the onnxruntime stand-in of repo_builder: "
            f"ONNX Runtime {onnxruntime.__version__} on the CPU"
        )

    def check_limits(self):
        if self.config.get("sequence_batching", {}).get("state"):
            raise pb_utils.TritonModelException(LIMITS["state"].format(model=self.name))
        ragged = any(tensor.get("allow_ragged_batch") for tensor in self.config["input"])
        if ragged or self.config.get("batch_input") or self.config.get("batch_output"):
            raise pb_utils.TritonModelException(LIMITS["ragged"].format(model=self.name))
        for tensor in self.config["input"] + self.config["output"]:
            if tensor["data_type"] == "TYPE_BF16":
                raise pb_utils.TritonModelException(LIMITS["bf16"].format(model=self.name, name=tensor["name"]))

    def check_inputs(self):
        found = infos(self.session.get_inputs())
        controls = sequence_controls(self.config)
        for name, datatype in controls.items():
            if name not in found:
                refuse("control_name", name=name)
            self.check_control(name, datatype, *found[name])
        expected = len(controls) + sum(not tensor.get("optional") for tensor in self.config["input"])
        if len(found) != expected:
            refuse("input_count", model=self.name, expected=expected, found=len(found))
        found.update(infos(self.session.get_overridable_initializers()))
        for tensor in self.config["input"]:
            if tensor.get("optional") and self.batched:
                refuse("optional_batching", model=self.name, name=tensor["name"])
            if tensor["name"] not in found:
                refuse("input_name", name=tensor["name"], allowed=", ".join(sorted(found)))
            self.check_tensor("input", tensor, *found[tensor["name"]], exact=False)
        return found

    def check_control(self, name, expected, datatype, shape):
        dims = shape[1:] if self.batched else shape
        if dims != [1]:
            refuse("control_dims", model=self.name, name=name, dims=text(dims))
        if expected != f"TYPE_{datatype}":
            found = ONNX_NAMES.get(datatype, datatype)
            refuse("control_datatype", model=self.name, name=name, found=found, expected=expected)

    def check_outputs(self):
        found = infos(self.session.get_outputs())
        for tensor in self.config["output"]:
            if tensor["name"] not in found:
                refuse("output_name", name=tensor["name"], allowed=", ".join(sorted(found)))
            self.check_tensor("output", tensor, *found[tensor["name"]], exact=True)
            if not found[tensor["name"]][1]:
                self.scalars[tensor["name"]] = configured_dims(tensor)

    def check_tensor(self, side, tensor, datatype, shape, *, exact):
        name, dims = tensor["name"], configured_dims(tensor)
        if tensor["data_type"] != f"TYPE_{datatype}":
            found = "BYTES" if datatype == "STRING" else datatype
            refuse("datatype", model=self.name, expected=tensor["data_type"], side=side, name=name, found=found)
        if not shape:
            if any(dim != 1 for dim in dims):
                refuse("scalar", model=self.name, name=name, dims=text(dims))
            return
        if self.batched:
            if shape[0] != -1:
                refuse("batch_dimension", model=self.name, name=name, shape=text(shape))
            dims = [-1, *dims]
        fits = len(shape) == len(dims) and all(
            have == want or (have == -1 and not exact) for have, want in zip(shape, dims, strict=True)
        )
        if not fits:
            key = "dims_batching" if self.batched else "dims"
            refuse(
                key, model=self.name, name=name, rank=len(shape), shape=text(shape), count=len(dims), dims=text(dims)
            )

    def execute(self, requests):
        responses = [None] * len(requests)
        feeds = [None] * len(requests)
        groups = {}
        for index, request in enumerate(requests):
            try:
                feeds[index] = {tensor.name(): self.array(tensor) for tensor in request.inputs()}
            except UnicodeDecodeError as error:
                responses[index] = failed(str(error.reason))
                continue
            alike = tuple(sorted((name, a.dtype.str, a.shape[1:]) for name, a in feeds[index].items()))
            groups.setdefault(alike if self.batched else index, []).append(index)
        for group in groups.values():
            results = self.run([feeds[index] for index in group], [requests[index] for index in group])
            for index, response in zip(group, results, strict=True):
                responses[index] = response
        return responses

    def run(self, feeds, requests):
        """One run for all requests of a group; where it fails each request is run alone, to fail alone."""
        merged = feeds[0] if len(feeds) == 1 else {name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]}
        asked = [name for name in self.outputs if any(name in r.requested_output_names() for r in requests)]
        try:
            found = dict(zip(asked, self.session.run(asked, merged), strict=True))
        except Exception as error:  # noqa: BLE001 (whatever ONNX Runtime raises becomes a response)
            if len(feeds) == 1:
                return [failed(runtime_words(error))]
            return [self.run([f], [r])[0] for f, r in zip(feeds, requests, strict=True)]
        responses, start = [], 0
        for feed, request in zip(feeds, requests, strict=True):
            rows = len(next(iter(feed.values()))) if self.batched else None
            responses.append(self.respond(found, request, start, rows))
            start += rows or 0
        return responses

    def respond(self, found, request, start, rows):
        tensors = []
        for name in [name for name in self.outputs if name in request.requested_output_names()]:
            array = np.asarray(found[name])
            if array.ndim == 0:
                array = array.reshape(self.scalars[name])
            elif rows is not None:
                if start + rows > len(array):
                    return failed(REFUSALS["split"][1].format(name=name, expected=start + rows, found=len(array)))
                array = array[start : start + rows]
            if array.dtype.kind in "OU":
                flat = [value.encode() if isinstance(value, str) else value for value in array.reshape(-1)]
                array = np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)
            tensors.append(pb_utils.Tensor(name, np.ascontiguousarray(array)))
        return pb_utils.InferenceResponse(tensors)

    def array(self, tensor):
        array = tensor.as_numpy()
        if array.dtype == object:
            # The compiled backend hands C strings to ONNX Runtime: they end at the first zero byte.
            try:
                flat = [value.split(b"\0", 1)[0].decode("utf-8") for value in array.reshape(-1)]
            except UnicodeDecodeError as error:
                error.reason = LIMITS["text"].format(name=tensor.name())
                raise
            array = np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)
        if tensor.name() in self.inputs and not self.inputs[tensor.name()][1]:
            array = array.reshape(())
        return array


def open_session(config):
    """The session of the model's file, with the options that the config's parameters name."""
    filename = config.get("default_model_filename") or "model.onnx"
    path = os.path.join(pb_utils.get_model_dir(), os.path.basename(filename))  # noqa: PTH118, PTH119
    if os.path.isdir(path):  # noqa: PTH112
        path = os.path.join(path, "model.onnx")  # noqa: PTH118
    options = session_options(config)
    if not os.path.exists(path):  # noqa: PTH110
        refuse("file", path=path, model=config["name"])
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's exceptions have no base of their own)
        raise pb_utils.TritonModelException(runtime_words(error)) from None


def session_options(config):
    """Threads, execution mode, graph level and memory options, as the compiled backend reads them.

    Where no thread count is given, the instances of the model share the cores instead of each taking all.
    """
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC, 1: levels.ORT_ENABLE_EXTENDED, 2: levels.ORT_DISABLE_ALL
    }.get(level, levels.ORT_ENABLE_ALL)  # fmt: skip
    values = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    mode = integer(values, "execution_mode")
    if mode not in (0, 1):
        refuse("execution_mode", value=mode)
    options.execution_mode = (
        onnxruntime.ExecutionMode.ORT_PARALLEL if mode else onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    )
    instances = sum(max(1, int(group.get("count", 1))) for group in config.get("instance_group", [])) or 1
    share = max(1, len(os.sched_getaffinity(0)) // instances)
    options.intra_op_num_threads = max(0, integer(values, "intra_op_thread_count")) or share
    options.inter_op_num_threads = max(0, integer(values, "inter_op_thread_count"))
    key = "session.use_device_allocator_for_initializers"
    if key in values:
        options.add_session_config_entry(key, values[key])
    if "enable_mem_arena" in values:
        options.enable_cpu_mem_arena = boolean(values["enable_mem_arena"])
    if "enable_mem_pattern" in values:
        options.enable_mem_pattern = boolean(values["enable_mem_pattern"])
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            refuse("accelerator", name=accelerator["name"])
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def infos(tensors):
    """Datatype and shape (-1 for symbolic dims) of ONNX Runtime's inputs or outputs, by name."""
    found = {}
    for tensor in tensors:
        kind, element = re.fullmatch(r"(\w+)\((.*)\)", tensor.type).groups()
        if kind != "tensor":
            refuse("onnx_type", found=ONNX_KINDS.get(kind, "ONNX_TYPE_UNKNOWN"), name=tensor.name)
        shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
        found[tensor.name] = TRITON_TYPES.get(element, "<invalid>"), shape
    return found


def described(name, datatype, shape, *, batched):
    dims = shape[1:] if batched else shape
    tensor = {"name": name, "data_type": f"TYPE_{datatype}", "dims": dims or [1]}
    if not dims and batched:
        tensor["reshape"] = {"shape": []}
    return tensor


def configured_dims(tensor):
    dims = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
    return [int(dim) for dim in dims]


def sequence_controls(config):
    """Datatype of every sequence control that the config gives to the model, by tensor name."""
    found = {}
    for tensor in config.get("sequence_batching", {}).get("control_input", []):
        for control in tensor.get("control", []):
            filled = (key for key in ("int32", "fp32", "bool") if control.get(f"{key}_false_true"))
            typed = next((f"TYPE_{key.upper()}" for key in filled), None)
            found[tensor["name"]] = typed or control.get("data_type", "TYPE_INVALID")
    return found


def integer(values, key):
    found = re.match(r"\s*[+-]?\d+", values.get(key, "0"))
    if not found:
        refuse("integer", value=values[key])
    return int(found.group())


def boolean(value):
    if value.lower() not in ("true", "on", "1", "false", "off", "0"):
        refuse("boolean", value=value)
    return value.lower() in ("true", "on", "1")


def runtime_words(error):
    """ONNX Runtime's message as its C interface gives it, with the number of its error code."""
    found = re.fullmatch(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", str(error), re.DOTALL)
    code, words = found.groups() if found else ("2", str(error))
    return REFUSALS["runtime"][1].format(code=code, text=words)


def refuse(key, **words):
    raise pb_utils.TritonModelException(REFUSALS[key][1].format(**words))


def failed(words):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(words))


def text(shape):
    return "[" + ",".join(str(dim) for dim in shape) + "]"
