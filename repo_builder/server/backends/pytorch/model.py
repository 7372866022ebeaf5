"""A stand-in for Triton's compiled pytorch backend (TorchScript), as a Python-based backend.

It serves the same repository that the compiled backend serves, and refuses what that one refuses, in its words:
``REFUSALS`` names the source function of every message (public repositories triton-inference-server/pytorch_backend,
release r24.10, and triton-inference-server/backend). It runs on the CPU; implicit state, batch_input, batch_output and
ragged batches it does not serve and says so.
"""

from __future__ import annotations

import json
import os
import re

import numpy as np
import triton_python_backend_utils as pb_utils

REFUSALS = {
    "file": ("libtorch.cc ModelState::LoadModel", "unable to find '{path}' for model instance '{model}'"),
    "load": ("libtorch.cc ModelState::LoadModel", "failed to load model '{model}': {text}"),
    "boolean": ("backend_common.cc ParseBoolValue", "failed to convert '{value}' to boolean"),
    "integer": ("backend_common.cc ParseIntValue", "failed to convert '{value}' to integral number"),
    "control_name": (
        "libtorch.cc ModelInstanceState::ValidateBooleanSequenceControl, ValidateTypedSequenceControl",
        "input '{name}' does not follow <name>__<index> naming convention.",
    ),
    "dicts": (
        "libtorch.cc ModelInstanceState::ValidateInputs",
        "Multiple inputs of kind DictType were detected. Only a single input of type Dict(str, Tensor) is supported.",
    ),
    "argument_type": (
        "libtorch.cc ModelInstanceState::ValidateInputs",
        "An input of type '{found}' was detected in the model. Only a single input of type Dict(str, Tensor) or "
        "input(s) of type Tensor are supported.",
    ),
    "input_count": (
        "libtorch.cc ModelInstanceState::ValidateInputs",
        "unable to load model '{model}', configuration expects {expected} inputs, model provides {found}",
    ),
    "no_inputs": (
        "libtorch.cc ModelInstanceState::ValidateInputs",
        "model configuration must contain at least one input, none were specified.",
    ),
    "no_outputs": (
        "libtorch.cc ModelInstanceState::ValidateOutputs",
        "model configuration must contain at least one output, none were specified.",
    ),
    "datatype": (
        "libtorch.cc ModelInstanceState::ValidateInputs, ValidateOutputs",
        "unsupported datatype {datatype} for {side} '{name}' for model '{model}'",
    ),
    "strings": (
        "libtorch.cc ModelInstanceState::ValidateInputs, ValidateOutputs",
        "Triton only supports 1 dimensional List of String as {side} for '{name}' for model '{model}'",
    ),
    "output_index": (
        "libtorch.cc ModelInstanceState::ProcessRequests",
        "The output {name} in the model configuration refers to an output index which doesn't exist. This model has "
        "{found} outputs",
    ),
    "execute": ("libtorch.cc ModelInstanceState::Execute", "PyTorch execute failure: {text}"),
    "output_kind": (
        "libtorch.cc ModelInstanceState::Execute",
        "PyTorch execute failure: output must be of type Tensor, List[str] or Tuple containing one of these two types. "
        "It should not be a List / Dictionary of Tensors or a Scalar",
    ),
    "output_datatype": (
        "libtorch.cc ModelInstanceState::ReadOutputTensors",
        "configuration expects datatype {expected} for output '{name}', model provides TYPE_{found}",
    ),
    "output_scalar": (
        "libtorch.cc ModelInstanceState::ReadOutputTensors",
        "output '{name}' is a scalar which is not supported.",
    ),
    "split": (
        "backend_output_responder.cc BackendOutputResponder::ProcessTensor",
        "failed to split the output tensor '{name}' in responses: expected batch size of at least {expected} in model "
        "output, got {found}",
    ),
}
# Not the compiled backend's words: what only this stand-in refuses.
LIMITS = {
    "state": "model '{model}': the pytorch stand-in does not serve implicit state (sequence_batching.state)",
    "ragged": "model '{model}': the pytorch stand-in does not serve batch_input, batch_output or ragged batches",
    "text": "input '{name}' is not UTF-8, which the pytorch stand-in needs",
}
# PyTorch is imported inside functions: the process that only completes the config starts without it.
TRITON_TYPES = {
    "torch.bool": "BOOL", "torch.uint8": "UINT8", "torch.int8": "INT8", "torch.int16": "INT16",
    "torch.int32": "INT32", "torch.int64": "INT64", "torch.float16": "FP16", "torch.float32": "FP32",
    "torch.float64": "FP64",
}  # fmt: skip
CONFIG_TYPES = {f"TYPE_{name}" for name in TRITON_TYPES.values()} | {"TYPE_STRING"}


class Failure(Exception):
    """The words of a failed request."""


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """TorchScript files do not say enough; the compiled backend skips it too."""
        return config

    def initialize(self, args):
        import torch

        self.config = json.loads(args["model_config"])
        self.name, self.batched = self.config["name"], self.config["max_batch_size"] > 0
        values = {key: value["string_value"] for key, value in self.config.get("parameters", {}).items()}
        self.inference_mode = boolean(values, "INFERENCE_MODE", default=True)
        self.optimized = not boolean(values, "DISABLE_OPTIMIZED_EXECUTION", default=False)
        apply_switches(values)
        apply_threads(values, self.config)
        self.module = load(self.config)
        self.check_limits()
        self.positions = self.check_inputs()
        self.outputs = self.check_outputs()
        pb_utils.Logger.log_info(
            f"model '{args['model_instance_name']}' is served by the pytorch stand-in of repo_builder: "
            f"PyTorch {torch.__version__} on the CPU"
        )

    def check_limits(self):
        if self.config.get("sequence_batching", {}).get("state"):
            raise pb_utils.TritonModelException(LIMITS["state"].format(model=self.name))
        ragged = any(tensor.get("allow_ragged_batch") for tensor in self.config["input"])
        if ragged or self.config.get("batch_input") or self.config.get("batch_output"):
            raise pb_utils.TritonModelException(LIMITS["ragged"].format(model=self.name))

    def check_inputs(self):
        """Position of every input in ``forward``, by name; empty for a single dictionary of tensors."""
        controls = sequence_controls(self.config)
        for name in controls:
            if index_of(name) is None:
                refuse("control_name", name=name)
        arguments = list(self.module.forward.schema.arguments)
        if arguments and arguments[0].type.kind() == "ClassType":
            arguments = arguments[1:]
        self.takes_dict = len(arguments) == 1 and arguments[0].type.kind() == "DictType"
        if arguments and not self.takes_dict:
            self.check_arguments(arguments, len(self.config["input"]) + len(controls))
        if not self.config["input"]:
            refuse("no_inputs")
        names = [tensor["name"] for tensor in self.config["input"]]
        self.check_tensors("input")
        if self.takes_dict:
            return {}
        allowed = [argument.name for argument in arguments]
        found = {name: index_of(name) for name in controls}
        if all(name in allowed for name in names):
            return {**found, **{name: allowed.index(name) for name in names}}
        return {**found, **indices(names)}

    def check_arguments(self, arguments, expected):
        if any(argument.type.kind() == "DictType" for argument in arguments[1:]):
            refuse("dicts")
        for argument in arguments:
            if argument.type.kind() not in ("TensorType", "ListType"):
                refuse("argument_type", found=argument.type.annotation_str)
        if len(arguments) != expected:
            refuse("input_count", model=self.name, expected=expected, found=len(arguments))

    def check_outputs(self):
        """Index of every output in what ``forward`` returns, by name."""
        if not self.config["output"]:
            refuse("no_outputs")
        self.check_tensors("output")
        return indices([tensor["name"] for tensor in self.config["output"]])

    def check_tensors(self, side):
        for tensor in self.config[side]:
            name, datatype = tensor["name"], tensor["data_type"]
            if datatype not in CONFIG_TYPES:
                refuse("datatype", datatype=datatype, side=side, name=name, model=self.name)
            if datatype == "TYPE_STRING" and len(configured_dims(tensor)) + self.batched > 1:
                refuse("strings", side=side, name=name, model=self.name)

    def execute(self, requests):
        responses = [None] * len(requests)
        feeds = [None] * len(requests)
        groups = {}
        for index, request in enumerate(requests):
            try:
                feeds[index] = {tensor.name(): array(tensor) for tensor in request.inputs()}
            except Failure as failure:
                responses[index] = failed(str(failure))
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
        try:
            found = self.forward(merged)
            arrays = {name: self.read(name, found) for name in self.outputs}
        except Failure as failure:
            if len(feeds) == 1:
                return [failed(str(failure))]
            return [self.run([f], [r])[0] for f, r in zip(feeds, requests, strict=True)]
        responses, start = [], 0
        for feed, request in zip(feeds, requests, strict=True):
            rows = len(next(iter(feed.values()))) if self.batched else None
            responses.append(respond(arrays, request, start, rows))
            start += rows or 0
        return responses

    def forward(self, feed):
        import torch

        values = {name: value.tolist() if value.dtype == object else tensor_of(value) for name, value in feed.items()}
        arguments = [values]
        if not self.takes_dict:
            arguments = [values[name] for name in sorted(values, key=lambda name: self.positions[name])]
        torch._C._set_graph_executor_optimize(self.optimized)
        try:
            with torch.inference_mode(self.inference_mode), torch.no_grad():
                result = self.module(*arguments)
        except Exception as error:
            raise Failure(REFUSALS["execute"][1].format(text=error)) from error
        return self.flat(result)

    def flat(self, result):
        import torch

        results = list(result) if isinstance(result, tuple) else [result]
        for value in results:
            strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
            if not strings and not isinstance(value, torch.Tensor):
                raise Failure(REFUSALS["output_kind"][1])
        for name, index in self.outputs.items():
            if index >= len(results):
                raise Failure(REFUSALS["output_index"][1].format(name=name, found=len(results)))
        return results

    def read(self, name, results):
        value = results[self.outputs[name]]
        if isinstance(value, list):
            return objects([item.encode() for item in value])
        expected = next(tensor["data_type"] for tensor in self.config["output"] if tensor["name"] == name)
        found = TRITON_TYPES.get(str(value.dtype), "<invalid>")
        if expected != f"TYPE_{found}":
            raise Failure(REFUSALS["output_datatype"][1].format(expected=expected, name=name, found=found))
        if value.ndim == 0:
            raise Failure(REFUSALS["output_scalar"][1].format(name=name))
        return value.contiguous().numpy()


def respond(arrays, request, start, rows):
    tensors = []
    for name in request.requested_output_names():
        if name not in arrays:
            continue
        part = arrays[name]
        if rows is not None:
            if start + rows > len(part):
                return failed(REFUSALS["split"][1].format(name=name, expected=start + rows, found=len(part)))
            part = part[start : start + rows]
        tensors.append(pb_utils.Tensor(name, np.ascontiguousarray(part)))
    return pb_utils.InferenceResponse(tensors)


def load(config):
    import torch

    filename = config.get("default_model_filename") or "model.pt"
    path = os.path.join(pb_utils.get_model_dir(), os.path.basename(filename))  # noqa: PTH118, PTH119
    if not os.path.exists(path):  # noqa: PTH110
        refuse("file", path=path, model=config["name"])
    try:
        return torch.jit.load(path, map_location="cpu")
    except Exception as error:  # noqa: BLE001 (PyTorch raises what its archive reader raises)
        words = REFUSALS["load"][1].format(model=config["name"], text=error)
        raise pb_utils.TritonModelException(words) from None


def apply_switches(values):
    """The JIT's switches, left as they are where the parameter is absent (cache, cuDNN, weight sharing: GPU only)."""
    import torch

    for key in ("ENABLE_CACHE_CLEANING", "DISABLE_CUDNN", "ENABLE_WEIGHT_SHARING"):
        boolean(values, key, default=False)
    switches = {
        "ENABLE_TENSOR_FUSER": torch._C._jit_set_texpr_fuser_enabled,
        "ENABLE_JIT_PROFILING": torch._C._jit_set_profiling_mode,
        "ENABLE_JIT_EXECUTOR": torch._C._jit_set_profiling_executor,
    }
    for key, switch in switches.items():
        if key in values:
            switch(boolean(values, key, default=False))


def apply_threads(values, config):
    """Thread counts of the parameters; where none is given the instances of the model share the cores."""
    import torch

    instances = sum(max(1, int(group.get("count", 1))) for group in config.get("instance_group", [])) or 1
    share = max(1, len(os.sched_getaffinity(0)) // instances)
    wanted = integer(values, "INTRA_OP_THREAD_COUNT")
    torch.set_num_threads(wanted if wanted > 0 else share)
    if integer(values, "INTER_OP_THREAD_COUNT") > 0:
        torch.set_num_interop_threads(integer(values, "INTER_OP_THREAD_COUNT"))


def indices(names):
    """Index of every name: the number after ``__`` where all follow that convention, else the order of the config."""
    numbered = [index_of(name) for name in names]
    if None in numbered:
        return {name: place for place, name in enumerate(names)}
    return dict(zip(names, numbered, strict=True))


def index_of(name):
    found = re.fullmatch(r".*?__(\d*)", name, re.DOTALL)
    return int(found.group(1) or 0) if found else None


def configured_dims(tensor):
    dims = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
    return [int(dim) for dim in dims]


def sequence_controls(config):
    inputs = config.get("sequence_batching", {}).get("control_input", [])
    return [control["name"] for control in inputs if control.get("control")]


def array(tensor):
    value = tensor.as_numpy()
    if value.dtype != object:
        return value
    try:
        return objects([item.decode("utf-8") for item in value.reshape(-1)])
    except UnicodeDecodeError as error:
        raise Failure(LIMITS["text"].format(name=tensor.name())) from error


def tensor_of(value):
    import torch

    return torch.from_numpy(value if value.flags.writeable else value.copy())


def objects(items):
    """A one-dimensional array of objects, of any length."""
    return np.array([*items, None], dtype=object)[:-1]


def integer(values, key):
    found = re.match(r"\s*[+-]?\d+", values.get(key, "-1"))
    if not found:
        refuse("integer", value=values[key])
    return int(found.group())


def boolean(values, key, *, default):
    value = values.get(key, str(default))
    if value.lower() not in ("true", "on", "1", "false", "off", "0"):
        refuse("boolean", value=value)
    return value.lower() in ("true", "on", "1")


def refuse(key, **words):
    raise pb_utils.TritonModelException(REFUSALS[key][1].format(**words))


def failed(words):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(words))
