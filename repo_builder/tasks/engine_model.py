"""The ModelConfig of a converted model: signature, batching, instances, and the user's overrides."""

from __future__ import annotations

from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SpecError
from repo_builder.model_config import apply_overrides, build
from repo_builder.planned import Content, PlannedModel
from repo_builder.spec import MEMORY_PER_CPU, ModelSpec
from repo_builder.tasks import plan_model
from repo_builder.tasks.instances import cpu_instances, thread_parameters
from repo_builder.tensors import TensorSpec, dtype

DEFAULT_MAX_BATCH_SIZE = 32

_ENGINES: dict[str, dict[str, str]] = {
    "onnx": {"backend": "onnxruntime", "platform": "onnxruntime_onnx"},
    "torchscript": {"backend": "pytorch", "platform": "pytorch_libtorch"},
    "aoti": {"backend": "pytorch", "platform": "torch_aoti"},
    plan_model.FORMAT: {"backend": "tensorrt", "platform": "tensorrt_plan"},
}
_FILES = {"onnx": "model.onnx", "torchscript": "model.pt", "aoti": "model.pt2", plan_model.FORMAT: "model.plan"}
"""The names that Triton looks for where the config names none (docs/user_guide/model_repository.md)."""
_NO_PREFETCHING = {"allow_timeout_override": True}
"""A queue policy without effect of its own (there is no default timeout): it makes the batcher wait for an instance.

Without one the server makes batches ahead of time for busy instances. While such a batch waits and the next request has
another shape, it looks at the two again and again, which keeps a core busy (core, dynamic_batch_scheduler.cc,
GetDynamicBatch: no pending request, no wait; releases 24.10 to 26.06). A policy ends that (scheduler_utils.cc,
support_prefetching), and a batch made later is larger.
"""
_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}


def engine_model(name: str, spec: ModelSpec, engine: Artifact) -> PlannedModel:
    """The Triton model that serves ``engine``'s file.

    Raises:
        SignatureError: batching was asked of a model without a batch dimension; a scalar that only ONNX Runtime serves.
        SpecError: batching and shape ranges contradict each other, or an override does not fit.

    Of a TensorRT plan also what ``plan_model.check`` raises.
    """
    size = max_batch_size(spec, engine)
    fields: dict[str, Any] = {
        "name": name,
        **_ENGINES[engine.format],
        "max_batch_size": size,
        "input": [_tensor(t, size, engine) for t in engine.inputs],
        "output": [_tensor(t, size, engine) for t in engine.outputs],
    }
    fields |= _instances(spec, engine)
    if engine.format == plan_model.FORMAT and (parameters := plan_model.server_parameters(engine)):
        fields["parameters"] = parameters
    if size and spec.batching.dynamic:
        fields["dynamic_batching"] = dynamic_batching(spec)
        if _differ(engine) and any(group["kind"] == _KINDS["cpu"] for group in fields.get("instance_group", ())):
            fields["dynamic_batching"]["default_queue_policy"] = _NO_PREFETCHING
    served = _FILES[engine.format]
    files: dict[str, Content] = {
        served if file == engine.path.name else file: engine.folder / file for file in engine.files
    }
    config = apply_overrides(build(fields), spec.config)
    if engine.format == plan_model.FORMAT:
        plan_model.check(config, engine)
    return PlannedModel(config, files)


def _tensor(tensor: TensorSpec, size: int, engine: Artifact) -> dict[str, Any]:
    if not tensor.shape and engine.format != "onnx":
        raise SignatureError(
            f"'{tensor.name}' is a scalar",
            expected=f"tensors with at least one axis: of {_ENGINES[engine.format]['backend']} models Triton serves "
            "scalars only as rows of a batch",
            mend="give it an axis inside the model (unsqueeze, keepdims) and export it again",
        )
    fields = tensor_fields(tensor, size)
    return {**fields, "is_shape_tensor": True} if tensor.name in plan_model.shape_tensors(engine) else fields


def _instances(spec: ModelSpec, engine: Artifact) -> dict[str, Any]:
    """Fields of the ModelConfig: the asked instances, else those of ``cpu_instances`` where the spec names the cores.

    Asked instances on the CPU share the cores; those of other kinds get no thread counts. None where ``config`` has an
    ``instance_group``: that one is the user's, threads and all.
    """
    asked, cpus = spec.instances, spec.cpus
    if "instance_group" in spec.config:
        return {}
    if engine.format == plan_model.FORMAT:
        return {"instance_group": [plan_model.instance_group(spec, engine)]}
    threads = 0
    if asked:
        group: dict[str, Any] = {"count": asked.count, "kind": _KINDS[asked.kind]}
        if asked.gpus:
            group["gpus"] = list(asked.gpus)
        if cpus and asked.kind == "cpu":
            threads = max(1, cpus // asked.count)
    elif cpus:
        weights = sum((engine.folder / file).stat().st_size for file in engine.files)
        count, threads = cpu_instances(weights, cpus, (spec.memory or MEMORY_PER_CPU * cpus) << 30)
        group = {"count": count, "kind": _KINDS["cpu"]}
    else:
        return {}
    parameters = thread_parameters(_ENGINES[engine.format]["backend"], threads) if threads else {}
    return {"instance_group": [group], "parameters": parameters}


def _differ(engine: Artifact) -> bool:
    """Whether requests can differ in shape, their rows apart."""
    return any(isinstance(size, str) for tensor in engine.inputs for size in tensor.shape[1:])


def max_batch_size(spec: ModelSpec, engine: Artifact) -> int:
    """The asked size, else the largest of the ranges of the batch axis, else 32; 0 without a batch dimension.

    What nobody asked for is no more than a plan's profiles take.
    """
    asked, range_ = spec.batching.max_batch_size, spec.shapes.get(engine.batch or "batch")
    if engine.batch is None:
        if asked:
            raise SignatureError(
                f"max_batch_size {asked} was asked for, but the model has no batch dimension: "
                f"{engine.facts.get('batch_refused', 'axis 0 is not the same dynamic axis everywhere')}",
                expected="a model whose inputs and outputs all start with one dynamic batch axis",
                mend="leave max_batch_size out (0), or export the model with a dynamic first axis",
            )
        return 0
    if asked is not None and range_ and asked > range_.max:
        raise SpecError(
            f"max_batch_size {asked} is larger than shapes.{engine.batch}.max {range_.max}",
            mend="make the two equal, or leave one of them out",
        )
    if asked is not None:
        return asked
    buckets = [bucket[engine.batch].max for bucket in spec.tensorrt.profiles if engine.batch in bucket]
    told = range_.max if range_ else max(buckets, default=DEFAULT_MAX_BATCH_SIZE)
    limit = plan_model.largest_batch(engine)
    return told if limit is None else min(told, limit)


def dynamic_batching(spec: ModelSpec) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if spec.batching.preferred_batch_sizes:
        fields["preferred_batch_size"] = list(spec.batching.preferred_batch_sizes)
    if spec.batching.max_queue_delay_microseconds:
        fields["max_queue_delay_microseconds"] = spec.batching.max_queue_delay_microseconds
    return fields


def tensor_fields(tensor: TensorSpec, max_batch: int) -> dict[str, Any]:
    """One ModelInput or ModelOutput; a scalar gets ``dims: [1]``, as dims cannot be empty.

    In a batch, where it is one value per row, a reshape tells so; without a batch the server refuses an empty reshape,
    and ``dims: [1]`` alone stands for the scalar (onnxruntime.cc, ModelInstanceState::ValidateInputs).
    """
    dims = list(tensor.dims[1:] if max_batch else tensor.dims)
    fields: dict[str, Any] = {"name": tensor.name, "data_type": dtype(tensor.dtype).config, "dims": dims or [1]}
    if not dims and max_batch:
        fields["reshape"] = {"shape": []}
    return fields
