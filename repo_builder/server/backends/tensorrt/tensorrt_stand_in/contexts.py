"""Execution contexts, the limits of their optimization profiles, and which of them serves a request."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from tensorrt_stand_in.config import leading_integer
from tensorrt_stand_in.messages import REFUSALS, refuse, text


class Context:
    """An execution context and the limits of its profile: per input [min, opt, max]."""

    def __init__(self, name, trt, plan, limits):
        self.name, self.trt, self.plan, self.limits, self.shapes = name, trt, plan, limits, None

    def inferred(self):
        """Whether the shapes and values that are set suffice for the outputs' shapes."""
        try:
            return not self.trt.infer_shapes()
        except RuntimeError:
            return False

    def narrow(self, config, instance, name, dims):
        """Serve no more of an input than the config's fixed dims and max_batch_size say."""
        low, _, high = self.limits[name]
        details = outside(dims, low, high)
        if details:
            refuse("config_shape", name=name, model=config["name"], details=details)
        high = [most if dim == -1 else dim for dim, most in zip(dims, high, strict=True)]
        if config["max_batch_size"] > 0:
            high[0] = min(high[0], config["max_batch_size"])
        self.limits[name][2] = high
        self.set_shape(instance, name, high)

    def set_shape(self, instance, name, shape):
        if -1 in self.plan.inputs[name].shape and not self.trt.set_input_shape(name, tuple(shape)):
            refuse("set_shape", shape=text(shape), name=name, instance=instance)

    def set_shapes(self, instance, shapes, *, again):
        """Set the inputs' shapes; ``again`` infers the outputs' even where the shapes are those of the last run."""
        if not again and self.shapes == shapes:
            return
        self.shapes = None
        for name, shape in shapes.items():
            details = self.misfit(name, shape)
            if details:
                refuse("request_shape", name=name, instance=instance, details=details)
            self.set_shape(instance, name, shape)
        if not self.inferred():
            refuse("infer_shapes")
        self.shapes = shapes

    def misfit(self, name, shape):
        low, _, high = self.limits[name]
        return outside(shape, low, high)

    def bad_value(self, name, values):
        low, _, high = self.limits[name]
        if len(values) != len(high):
            return REFUSALS["value_count"][1].format(expected=len(high), found=len(values))
        for index, (below, found, above) in enumerate(zip(low, values, high, strict=True)):
            if above is not None and not below <= found <= above:
                return REFUSALS["value"][1].format(index=index, low=below, high=above, found=found)
        return ""


def make(plan, names, stream, instance):
    """One context for each profile of the instance group, by profile index."""
    made, count = {}, plan.engine.num_optimization_profiles
    for name in sorted(set(names)) or ["default"]:
        index = 0 if name == "default" else leading_integer(name)
        if index in made:
            continue
        context = plan.engine.create_execution_context()
        if context is None:
            refuse("context", text=plan.log.last)
        if index >= count or not context.set_optimization_profile_async(index, stream.handle):
            refuse("profile", profile=name, index=index, instance=instance, last=count - 1)
        stream.synchronize()
        made[index] = Context(name, context, plan, plan.limits(index))
    return dict(sorted(made.items()))


def choose(contexts, shapes, values):
    """(index, context) whose optimum is nearest, as the compiled backend measures it; the first where none fits."""
    if len(contexts) == 1:
        return next(iter(contexts.items()))
    distances, wanted = {}, {**shapes, **values}
    for index, context in contexts.items():
        if not any(context.misfit(name, shape) for name, shape in shapes.items()) and not any(
            context.bad_value(name, found) for name, found in values.items()
        ):
            distances[index] = sum(
                abs(best - here)
                for name, shape in wanted.items()
                for best, here in zip(context.limits[name][1], shape, strict=True)
                if best is not None
            )
    if not distances:
        profiles = "".join(f" {context.name}[{index}]" for index, context in contexts.items())
        pb_utils.Logger.log_error(REFUSALS["no_profile"][1].format(profiles=profiles))
        return next(iter(contexts.items()))
    index = min(distances, key=lambda key: (distances[key], key))
    return index, contexts[index]


def outside(shape, low, high):
    """Why a shape lies outside the limits, in the compiled backend's words; empty where it does not (-1 fits)."""
    if len(shape) != len(high):
        return REFUSALS["rank"][1].format(expected=len(high), found=len(shape))
    for axis, (below, found, above) in enumerate(zip(low, shape, high, strict=True)):
        if found != -1 and not below <= found <= above:
            return REFUSALS["dimension"][1].format(axis=axis, low=below, high=above, found=found)
    return ""
