"""A stand-in for Triton's compiled tensorrt backend, as a Python-based backend.

It serves the same repository that the compiled backend serves, on the GPU, and refuses what that one refuses, in its
words: ``REFUSALS`` in ``tensorrt_stand_in/messages.py`` names the source function of every message (public repositories
triton-inference-server/tensorrt_backend, release r24.10, and triton-inference-server/backend). Sequence batching,
ragged batches and outputs that are shape tensors it does not serve and says so.

It needs the ``tensorrt`` package of the version that built the plans in the environment of the server's Python backend,
TensorRT's libraries on LD_LIBRARY_PATH, and the NVIDIA driver, which it calls through ctypes. An instance has one
stream, one execution context for each of its optimization profiles, and memory for their largest shapes, made once.

The server appends this folder to ``sys.path`` of the instance's process and imports ``model``: what it is made of lies
in a package whose name no other module bears.
"""

from __future__ import annotations

import json
import os

import triton_python_backend_utils as pb_utils
from tensorrt_stand_in import checks, contexts
from tensorrt_stand_in.config import batch_size, complete, instance_group, plan_path
from tensorrt_stand_in.execution import Execution
from tensorrt_stand_in.gpu import Gpu, refusals
from tensorrt_stand_in.messages import REFUSALS, refuse
from tensorrt_stand_in.plan import EngineError, Plan


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        """Names, datatypes, dims and max_batch_size from the plan; the plan's limits are checked in any case."""
        given = config.as_dict()
        groups = given.get("instance_group") or [{}]
        if groups[0].get("kind") != "KIND_GPU":
            return config
        gpu = Gpu(given["name"], int((groups[0].get("gpus") or [0])[0]))
        path = plan_path(given, gpu.capability)
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
        self.config, self.instance = json.loads(args["model_config"]), args["model_instance_name"]
        model, self.batched = self.config["name"], self.config["max_batch_size"] > 0
        group = instance_group(self.config, self.instance)
        secondary = group.get("secondary_devices", [])
        if len(secondary) > 1:
            refuse("secondary", instance=self.instance, model=model)
        if args["model_instance_kind"] != "GPU":
            refuse("kind", model=model)
        checks.check_limits(self.config)
        self.gpu = Gpu(self.instance, int(args["model_instance_device_id"]))
        path = plan_path(self.config, self.gpu.capability)
        if not os.path.exists(path):  # noqa: PTH110
            refuse("file", path=path, instance=self.instance)
        try:
            self.plan = Plan(path, model, int(secondary[0].get("device_id", 0)) if secondary else None)
        except EngineError as error:
            refuse("engine", text=str(error))
        with refusals():
            self.contexts = contexts.make(self.plan, group.get("profile") or [], self.gpu.stream, self.instance)
            checks.check(self.config, self.instance, self.plan, self.contexts)
            self.execution = Execution(self.plan, self.contexts, self.gpu.stream, self.config, self.instance)
        described = "; ".join(f"{context.name}[{index}]" for index, context in self.contexts.items())
        pb_utils.Logger.log_info(
            f"model '{self.instance}' is served by the tensorrt stand-in of repo_builder: TensorRT "
            f"{self.plan.trt.__version__} on GPU {args['model_instance_device_id']}, compute capability "
            f"{self.gpu.capability}, optimization profiles {described}"
        )

    def finalize(self):
        self.contexts.clear()  # TensorRT 8.6 does not survive every order: contexts, their memory, the engine
        self.execution = self.plan = None

    def execute(self, requests):
        self.gpu.device.make_current()
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
            with refusals():
                found = self.execution.infer(feeds, [name for name in self.plan.outputs if name in asked])
        except pb_utils.TritonModelException as error:
            if len(feeds) == 1:
                return [failed(str(error))]
            return [self.run([f], [r], False)[0] for f, r in zip(feeds, requests, strict=True)]
        responses, start = [], 0
        for feed, request in zip(feeds, requests, strict=True):
            rows = len(next(iter(feed.values()))) if self.batched else None
            responses.append(respond(found, request, start, rows, keep))
            start += rows or 0
        return responses


def respond(found, request, start, rows, keep):
    """A request's rows of the outputs: views where they may be kept."""
    tensors = []
    for name in [name for name in found if name in request.requested_output_names()]:
        array = found[name]
        if rows is not None:
            if start + rows > len(array):
                return failed(REFUSALS["split"][1].format(name=name, expected=start + rows, found=len(array)))
            array = array[start : start + rows]
        tensors.append(pb_utils.Tensor(name, array if keep else array.copy()))
    return pb_utils.InferenceResponse(tensors)


def failed(words):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(words))
