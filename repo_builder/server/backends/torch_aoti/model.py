"""A stand-in for what Triton's compiled pytorch backend does with platform ``torch_aoti``: AOTInductor packages.

The embedded server's release knows no such platform; it is shown the model under this backend's own name
(``pipeline/serving.py``). torch's own loader runs the package, on the CPU. ``REFUSALS`` names the source function of
every message (public repository triton-inference-server/pytorch_backend, release r26.05).
"""

from __future__ import annotations

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils

REFUSALS = {
    "file": (
        "pt2/model_state.cc ModelState::LoadModel",
        'PyTorch inductor model file "{path}" is unreachable or inaccessible.',
    ),
    "input_count": (
        "pt2/model_instance_state.cc ModelInstanceState::ValidateInputs",
        'Failed to load model "{model}" configuration expects {expected} inputs, but model expects {found} inputs.',
    ),
    "input_name": (
        "pt2/model_instance_state.cc ModelInstanceState::ValidateInputs",
        'Input "{name}" for model instance "{model}" is not found in model input map.',
    ),
    "output_name": (
        "pt2/model_instance_state.cc ModelInstanceState::ValidateOutputs",
        'Output "{name}" for model instance "{model}" is not found in model output map.',
    ),
}
# Not the compiled backend's words: what only this stand-in refuses.
LIMITS = {"batches": "model '{model}': the backend makes no batches for platform torch_aoti; set max_batch_size 0"}


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """The compiled backend completes nothing for packages."""
        return config

    def initialize(self, args):
        import torch

        config = json.loads(args["model_config"])
        if config["max_batch_size"]:
            raise pb_utils.TritonModelException(LIMITS["batches"].format(model=config["name"]))
        filename = os.path.basename(config.get("default_model_filename") or "model.pt2")  # noqa: PTH119
        path = os.path.join(pb_utils.get_model_dir(), filename)  # noqa: PTH118
        if not os.path.exists(path):  # noqa: PTH110
            refuse("file", path=path)
        try:
            self.loader = torch._inductor.aoti_load_package(path).loader
        except Exception as error:  # noqa: BLE001 (PyTorch raises what its archive reader raises)
            raise pb_utils.TritonModelException(str(error)) from None
        arguments, results = (json.loads(spec)[1] for spec in self.loader.get_call_spec())
        given, named = arguments["children_spec"]
        inputs = [*(f"ARGS{n}" for n in names(given)), *(f"KWARGS{n}" for n in names(named))]
        outputs = [f"RESULT{n}" for n in names(results)]
        expected = len(config["input"])
        if len(inputs) != expected:
            refuse("input_count", model=args["model_instance_name"], expected=expected, found=len(inputs))
        self.inputs = places(config["input"], inputs, "input", args["model_instance_name"])
        self.outputs = places(config["output"], outputs, "output", args["model_instance_name"])
        pb_utils.Logger.log_info(
            f"model '{args['model_instance_name']}' is served by the torch_aoti stand-in of repo_builder: "
            f"PyTorch {torch.__version__} on the CPU"
        )

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        import torch

        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        ordered = sorted(arrays, key=lambda name: self.inputs[name])
        try:
            with torch.no_grad():
                found = self.loader.boxed_run([torch.from_numpy(arrays[name].copy()) for name in ordered])
        except Exception as error:  # noqa: BLE001 (what the package's own code raises)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))
        wanted = [name for name in request.requested_output_names() if name in self.outputs]
        tensors = [(name, found[self.outputs[name]].contiguous().numpy()) for name in wanted]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.ascontiguousarray(a)) for name, a in tensors])


def names(spec):
    """Accessors of the tensors of a call specification, in order: ``[0]``, ``[2][key]``; empty for one alone."""
    if not spec["type"]:
        return [""]
    keys = json.loads(spec["context"]) if spec["type"].endswith("dict") else range(len(spec["children_spec"]))
    children = zip(keys, spec["children_spec"], strict=True)
    return [f"[{key}]{name}" for key, child in children for name in names(child)]


def places(tensors, known, side, model):
    """Place of every tensor by name: that of the call specification, or ``INPUT__0`` and the like."""
    found = {name: place for place, name in enumerate(known)}
    found.update({f"{side.upper()}__{place}": place for place in range(len(known))})
    for tensor in tensors:
        if tensor["name"] not in found:
            refuse(f"{side}_name", name=tensor["name"], model=model)
    return {tensor["name"]: found[tensor["name"]] for tensor in tensors}


def refuse(key, **words):
    raise pb_utils.TritonModelException(REFUSALS[key][1].format(**words))
