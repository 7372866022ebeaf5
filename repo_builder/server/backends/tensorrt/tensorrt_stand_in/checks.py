"""What a configuration may ask of a plan: the checks of the compiled backend, and the stand-in's limits."""

from __future__ import annotations

from tensorrt_stand_in.config import compatible, configured_dims
from tensorrt_stand_in.messages import limit, refuse, text
from tensorrt_stand_in.plan import TYPES


def check_limits(config):
    """Refuse the schedulers and batches that the stand-in does not serve."""
    if "sequence_batching" in config:
        limit("sequence", model=config["name"])
    ragged = any(tensor.get("allow_ragged_batch") for tensor in config["input"])
    if ragged or config.get("batch_input") or config.get("batch_output"):
        limit("ragged", model=config["name"])


def check(config, instance, plan, contexts):
    """What ValidateIO and InitIOBindingBuffers of the compiled backend check, in their order.

    The config's fixed dims and max_batch_size narrow what the contexts serve.
    """
    model, sides = config["name"], (("input", plan.inputs), ("output", plan.outputs))
    if len(plan.inputs) < len(config["input"]):
        refuse("input_count", model=model, expected=len(config["input"]), found=len(plan.inputs))
    for side, found in sides:
        for tensor in config[side]:
            if tensor["name"] not in found:
                refuse(f"{side}_name", name=tensor["name"], allowed=", ".join(sorted(found)))
    for side, found in sides:
        for tensor in config[side]:
            _check_marks(model, side, tensor, found[tensor["name"]])
    for side, found in sides:
        for tensor in config[side]:
            _check_type(instance, side, tensor, found[tensor["name"]])
            dims = _check_dims(config, instance, tensor, found[tensor["name"]])
            if side == "input" and dims is not None:
                for context in contexts.values():
                    context.narrow(config, instance, tensor["name"], dims)
    for side, found in sides:
        for name in [name for name in found if name not in [tensor["name"] for tensor in config[side]]]:
            refuse("missing_config", side=side, name=name, instance=instance)


def _check_marks(model, side, tensor, found):
    words = {"side": side, "name": tensor["name"], "model": model}
    if tensor["data_type"].removeprefix("TYPE_") not in TYPES.values():
        refuse("unsupported", datatype=tensor["data_type"], **words)
    if found.is_shape_tensor != bool(tensor.get("is_shape_tensor")):
        refuse("shape_unmarked" if found.is_shape_tensor else "shape_marked", **words)
    if found.linear == bool(tensor.get("is_non_linear_format_io")):
        refuse("nonlinear_marked" if found.linear else "nonlinear_unmarked", **words)
    for key, met in (
        ("nonlinear", not found.linear),
        ("shape_output", side == "output" and found.is_shape_tensor),
        ("bf16", found.datatype == "BF16"),
    ):
        if met:
            limit(key, model=model, name=tensor["name"])


def _check_type(instance, side, tensor, found):
    expected = tensor["data_type"].removeprefix("TYPE_")
    if expected != found.datatype:
        key = "shape_datatype" if found.is_shape_tensor else "datatype"
        types = {"expected": expected, "found": found.datatype or "INVALID"}
        refuse(key, side=side, name=tensor["name"], instance=instance, **types)


def _check_dims(config, instance, tensor, found):
    """The tensor's dims with the batch's; None for a shape tensor."""
    name, dims, batched = tensor["name"], configured_dims(tensor), config["max_batch_size"] > 0
    if found.is_shape_tensor:
        if dims != [dim - batched for dim in found.shape]:
            refuse("shape_dims", instance=instance, name=name, shape=text(found.shape), dims=text(dims))
        return None
    words = {"model": config["name"], "name": name, "shape": text(found.shape), "rank": len(found.shape)}
    if batched and not found.shape:
        refuse("batch_dimension", **words)
    full = [-1, *dims] if batched else dims
    if not compatible(found.shape, full):
        refuse("dims_batching" if batched else "dims", count=len(full), dims=text(full), **words)
    return full
