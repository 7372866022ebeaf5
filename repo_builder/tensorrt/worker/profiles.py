"""Optimization profiles: checked against a network's inputs in plain values, then given to the builder."""

from __future__ import annotations

from runtime import Refused

KINDS = ("min", "opt", "max")


def check(inputs, profiles):
    """Refuse profiles that the graph's inputs do not allow.

    Args:
        inputs: ``[{"name", "shape" (-1 dynamic), "is_shape_tensor"}]`` of the parsed network.
        profiles: ``[{input name: {"min", "opt", "max"}, "values": {shape tensor: {"min", "opt", "max"}}}]``.

    Raises:
        Refused: names the profile, the input and the axis.
    """
    dynamic = [i for i in inputs if -1 in i["shape"] or i["is_shape_tensor"]]
    if dynamic and not profiles:
        raise Refused(
            "the graph has dynamic inputs ({}) and no profile was given".format(", ".join(map(_shown, dynamic))),
            "a range for every dynamic axis",
            "name min, opt and max of each axis",
        )
    names = [i["name"] for i in inputs]
    for index, profile in enumerate(profiles):
        for name in [*profile, *profile.get("values", {})]:
            if name not in names and name != "values":
                raise Refused(
                    f"profile {index} names '{name}', which is no input of the graph",
                    "inputs: " + ", ".join(names),
                )
        for one in inputs:
            where = f"profile {index}, input {_shown(one)}"
            if one["is_shape_tensor"]:
                _check_values(one, profile.get("values", {}).get(one["name"]), where)
            else:
                _check_shape(one, profile.get(one["name"]), where)


def make(builder, inputs, profile):
    """The builder's profile of one checked mapping.

    Raises:
        Refused: TensorRT does not take it.
    """
    made = builder.create_optimization_profile()
    for one in inputs:
        name = one["name"]
        if one["is_shape_tensor"]:
            value, setter = profile["values"][name], made.set_shape_input
        elif name in profile:
            value, setter = profile[name], made.set_shape
        else:
            continue
        try:
            setter(name, *(value[kind] for kind in KINDS))
        except (ValueError, RuntimeError, TypeError) as error:
            raise Refused(f"TensorRT does not take {value} for input {_shown(one)}: {error}") from error
    return made


def _check_shape(one, given, where):
    if given is None:
        if -1 in one["shape"]:
            raise Refused(
                f"{where} has no range", "min, opt and max of its shape", "name the range of each dynamic axis"
            )
        return
    for kind in KINDS:
        if len(given[kind]) != len(one["shape"]):
            raise Refused(
                f"{where}: {kind} {given[kind]} has {len(given[kind])} axes",
                "{} axes".format(len(one["shape"])),
            )
    for axis, size in enumerate(one["shape"]):
        low, opt, high = (given[kind][axis] for kind in KINDS)
        place = f"{where}, axis {axis}"
        if size != -1 and {low, opt, high} != {size}:
            raise Refused(
                f"{place}: the range {low}..{opt}..{high} leaves the graph's fixed size {size}",
                f"{size}..{size}..{size}",
                "export the graph with a dynamic axis there, or ask for that size alone",
            )
        _check_order(low, opt, high, place, lowest=1)


def _check_values(one, given, where):
    if -1 in one["shape"] or len(one["shape"]) > 1:
        raise Refused(
            f"{where} is a shape tensor of a dynamic or higher shape",
            "a scalar or a vector of a fixed length",
            "export the graph so that the shape comes from constants or from other inputs' shapes",
        )
    if given is None:
        raise Refused(
            f"{where} is a shape tensor (its values decide shapes) and its values have no range",
            "min, opt and max of its values",
            "name them under values, or bind the shape in the graph (constant folding)",
        )
    count = one["shape"][0] if one["shape"] else 1
    for kind in KINDS:
        if len(given[kind]) != count:
            raise Refused(f"{where}: {kind} has {len(given[kind])} values", f"{count} values")
    for place, (low, opt, high) in enumerate(zip(*(given[kind] for kind in KINDS))):
        _check_order(low, opt, high, f"{where}, value {place}", lowest=None)


def _check_order(low, opt, high, place, lowest):
    if not low <= opt <= high or (lowest is not None and low < lowest):
        raise Refused(
            f"{place}: the range is min {low}, opt {opt}, max {high}",
            "{}min <= opt <= max".format("" if lowest is None else f"{lowest} <= "),
        )


def _shown(one):
    return "'{}' {}".format(one["name"], one["shape"])
