"""Rules of the Caffe layers that move values: where they cut, join, turn and fold blobs, and the shapes that follow."""

from __future__ import annotations

from math import prod

import numpy as np

from repo_builder.formats import caffe_priors
from repo_builder.formats.caffe_net import Layer
from repo_builder.formats.caffe_rules import Rule, Shape, Shapes, alone, axis_of, image, told_shapes


def _shuffle(layer: Layer, bottoms: Shapes) -> Shapes:
    group = layer.message.shuffle_channel_param.group
    if group < 1 or (bottoms[0][1:2] and bottoms[0][1] % group):
        raise layer.refuse(
            f"has {group} groups over {told_shapes(bottoms)}", expected="groups that divide the channels"
        )
    return image(layer, bottoms)


def _concat(layer: Layer, bottoms: Shapes) -> Shapes:
    axis = concat_axis(layer, len(bottoms[0]))
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms}
    if len(rest) != 1 or len({len(shape) for shape in bottoms}) != 1:
        raise layer.refuse(
            f"cannot join {told_shapes(bottoms)} along axis {axis}", expected="blobs equal on the other axes"
        )
    return [(*bottoms[0][:axis], sum(shape[axis] for shape in bottoms), *bottoms[0][axis + 1 :])]


def concat_axis(layer: Layer, rank: int) -> int:
    told = layer.message.concat_param
    return axis_of(layer, told.concat_dim if told.HasField("concat_dim") else told.axis, rank)


def _slice(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    axis, points = cuts(layer, shape)
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in np.diff(points).tolist()]


def cuts(layer: Layer, shape: Shape) -> tuple[int, list[int]]:
    """The axis that a Slice cuts, and where its parts begin and end."""
    told = layer.message.slice_param
    axis = axis_of(layer, told.slice_dim if told.HasField("slice_dim") else told.axis, len(shape))
    parts, points = len(layer.tops), list(told.slice_point)
    if not points and parts and shape[axis] % parts == 0:
        points = [shape[axis] // parts * number for number in range(1, parts)]
    points = [0, *points, shape[axis]]
    if len(points) != parts + 1 or min(np.diff(points)) <= 0:
        raise layer.refuse(
            f"cannot cut axis {axis} of {list(shape)} at {points[1:-1]} into {parts} tops",
            expected="rising slice points inside the axis, one fewer than tops",
        )
    return axis, points


def _split(layer: Layer, bottoms: Shapes) -> Shapes:
    return [bottoms[0]] * len(layer.tops)


def _silence(_layer: Layer, _bottoms: Shapes) -> Shapes:
    return []


def _crop(layer: Layer, bottoms: Shapes) -> Shapes:
    axis, offsets = crop(layer, bottoms)
    return [(*bottoms[0][:axis], *bottoms[1][axis:])] if offsets else [bottoms[0]]


def crop(layer: Layer, bottoms: Shapes) -> tuple[int, list[int]]:
    """The first axis that a Crop cuts, and the offset on it and on each axis behind it."""
    told = layer.message.crop_param
    if len(bottoms) != 2 or len(bottoms[0]) != len(bottoms[1]):
        raise layer.refuse(f"takes {told_shapes(bottoms)}", expected="two blobs with equally many axes")
    axis = axis_of(layer, told.axis, len(bottoms[0]))
    count = len(bottoms[0]) - axis
    given = list(told.offset)
    if len(given) not in (0, 1, count):
        raise layer.refuse(f"has {len(given)} offsets", expected=f"none, one, or one for each of {count} axes")
    offsets = given if len(given) == count else (given or [0]) * count
    for number, offset in enumerate(offsets, start=axis):
        if offset + bottoms[1][number] > bottoms[0][number]:
            raise layer.refuse(
                f"cuts {told_shapes(bottoms)} at {offset} on axis {number}", expected="a cut inside the blob"
            )
    return axis, offsets


def _reshape(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    told = layer.message.reshape_param
    start = axis_of(layer, told.axis if told.axis >= 0 else told.axis + 1 + len(shape), len(shape), end=True)
    end = len(shape) if told.num_axes == -1 else start + told.num_axes
    dims = list(told.shape.dim)
    if not start <= end <= len(shape) or dims.count(-1) > 1 or min(dims, default=0) < -1:
        raise layer.refuse(f"cannot make {dims} of {list(shape)}", expected="axes of the blob, and one -1 at most")
    inner = shape[start:end]
    if any(size == 0 and place >= len(inner) for place, size in enumerate(dims)):
        raise layer.refuse(f"copies an axis that {list(inner)} does not have", expected="0 for an axis that is there")
    made = [inner[place] if size == 0 else size for place, size in enumerate(dims)]
    known = prod(size for size in made if size != -1)
    made = [prod(inner) // known if size == -1 else size for size in made]
    if prod(made) != prod(inner):
        raise layer.refuse(f"cannot make {dims} of {list(inner)}", expected=f"sizes whose product is {prod(inner)}")
    return [(*shape[:start], *made, *shape[end:])]


def _flatten(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    told = layer.message.flatten_param
    start, end = axis_of(layer, told.axis, len(shape)), axis_of(layer, told.end_axis, len(shape))
    if end < start:
        raise layer.refuse(f"flattens axes {start} to {end}", expected="an end behind the start")
    return [(*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])]


def _permute(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    return [tuple(shape[axis] for axis in order(layer, len(shape)))]


def order(layer: Layer, rank: int) -> list[int]:
    """A Permute's axes; those that it does not name follow in their order."""
    told = [axis_of(layer, axis, rank) for axis in layer.message.permute_param.order]
    if len(set(told)) != len(told):
        raise layer.refuse(f"names an axis twice: {told}", expected="every axis once")
    return [*told, *(axis for axis in range(rank) if axis not in told)]


def _prior_box(layer: Layer, bottoms: Shapes) -> Shapes:
    return [(1, 2, caffe_priors.count(layer, bottoms))]


def _interp(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    told = layer.message.interp_param
    if len(shape) != 4 or told.pad_beg or told.pad_end or told.shrink_factor != 1 or told.zoom_factor < 1:
        raise layer.refuse(
            "has padding or a shrink_factor, or takes no N x C x H x W blob",
            expected="height and width, or a zoom_factor",
        )
    if told.HasField("height") and told.HasField("width"):
        return [(*shape[:2], told.height, told.width)]
    return [(*shape[:2], *(size + (size - 1) * (told.zoom_factor - 1) for size in shape[2:]))]


RULES: dict[str, Rule] = {
    "ShuffleChannel": _shuffle,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Silence": _silence,
    "Crop": _crop,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "PriorBox": _prior_box,
    "Interp": _interp,
}
"""By type: the shapes of the tops for those of the bottoms."""
