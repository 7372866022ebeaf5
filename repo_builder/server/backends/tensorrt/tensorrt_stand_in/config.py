"""A model's configuration: which plan and which group serve an instance, and what a plan completes of it."""

from __future__ import annotations

import os

import triton_python_backend_utils as pb_utils

from tensorrt_stand_in.messages import refuse


def instance_group(config, instance):
    """The instance group that an instance belongs to: its name is the group's and a number."""
    groups = {group.get("name"): group for group in config.get("instance_group", [])}
    return groups.get(instance.rpartition("_")[0]) or groups.get(instance) or next(iter(groups.values()), {})


def plan_path(config, capability):
    """The plan for this GPU: cc_model_filenames, else default_model_filename, else model.plan."""
    filename = config.get("cc_model_filenames", {}).get(capability) or config.get("default_model_filename")
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
    limit = max(
        min((max_[0] for _, _, max_ in plan.limits(index).values() if max_ and max_[0] is not None), default=0)
        for index in indices
    )
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


def leading_integer(name):
    """The number that a profile's name starts with; the server has refused names without one."""
    digits = name.strip()
    while digits and not digits.lstrip("+-").isdigit():
        digits = digits[:-1]
    return int(digits or 0)
