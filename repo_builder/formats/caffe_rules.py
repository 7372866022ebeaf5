"""By type of layer: the shapes of a Caffe layer's tops for those of its bottoms, and the parameters behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from repo_builder.formats import caffe_priors, caffe_windows
from repo_builder.formats.caffe_net import Layer

Shape = tuple[int, ...]
Shapes = list[Shape]
Rule = Callable[[Layer, Shapes], Shapes]

RULES: dict[str, Rule] = {}


def axis_of(layer: Layer, axis: int, rank: int, *, end: bool = False) -> int:
    """An axis from 0; negative ones count from the end. ``end`` allows the rank itself.

    Raises:
        ConversionError: the blob has no such axis.
    """
    found = axis + rank if axis < 0 else axis
    if not 0 <= found < rank + end:
        raise layer.refuse(f"has axis {axis} over a blob of {rank} axes", expected=f"{-rank} to {rank - 1}")
    return found


def _rule(*types: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, rule))
        return rule

    return register


@_rule("ReLU", "ReLU6", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "BNLL", "Exp", "Log", "Power", "Dropout")
@_rule("BatchNorm", "Softmax", "MVN")
def _same(layer: Layer, bottoms: Shapes) -> Shapes:
    return _alone(layer, bottoms)


@_rule("LRN", "Normalize")
def _same_image(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms[0]) != 4:
        raise layer.refuse(f"takes a blob of shape {list(bottoms[0])}", expected="four axes: N x C x H x W")
    return _alone(layer, bottoms)


@_rule("ShuffleChannel")
def _shuffle(layer: Layer, bottoms: Shapes) -> Shapes:
    group = layer.message.shuffle_channel_param.group
    if group < 1 or (bottoms[0][1:2] and bottoms[0][1] % group):
        raise layer.refuse(f"has {group} groups over {_told(bottoms)}", expected="groups that divide the channels")
    return _same_image(layer, bottoms)


@_rule("Scale", "Bias")
def _scaled(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms) > 2:
        raise layer.refuse(f"has {len(bottoms)} bottoms", expected="one or two")
    spread(layer, bottoms)
    return [bottoms[0]]


def spread(layer: Layer, bottoms: Shapes) -> tuple[int, Shape]:
    """The first axis that a Scale's or Bias' factors lie along, and their shape."""
    told = layer.message.scale_param if layer.type == "Scale" else layer.message.bias_param
    whole = bottoms[0]
    axis = axis_of(layer, told.axis, len(whole)) if len(bottoms) == 1 or bottoms[1] else 0
    count = len(bottoms[1]) if len(bottoms) == 2 else told.num_axes
    shape = whole[axis:] if count == -1 else whole[axis : axis + count]
    if (count >= 0 and len(shape) != count) or (len(bottoms) == 2 and shape != bottoms[1]):
        factors = list(bottoms[1]) if len(bottoms) == 2 else f"{count} axes"
        raise layer.refuse(f"cannot lay {factors} over {list(whole)} from axis {axis}", expected="equal sizes there")
    return axis, shape


@_rule("Convolution")
def _convolution(layer: Layer, bottoms: Shapes) -> Shapes:
    window = caffe_windows.of_convolution(layer, bottoms[0])
    _groups(layer, bottoms[0])
    return [
        (s[0], layer.message.convolution_param.num_output, *caffe_windows.convolved(s, window))
        for s in _alike(layer, bottoms)
    ]


@_rule("Deconvolution")
def _deconvolution(layer: Layer, bottoms: Shapes) -> Shapes:
    window = caffe_windows.of_convolution(layer, bottoms[0])
    _groups(layer, bottoms[0])
    return [
        (s[0], layer.message.convolution_param.num_output, *caffe_windows.deconvolved(s, window))
        for s in _alike(layer, bottoms)
    ]


@_rule("Pooling")
def _pooling(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    if layer.message.pooling_param.pool == 2:
        raise layer.refuse("is stochastic", expected="MAX or AVE")
    return [(*shape[:2], *caffe_windows.pooled(layer, shape, caffe_windows.of_pooling(layer, shape)))]


@_rule("InnerProduct")
def _inner_product(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    told = layer.message.inner_product_param
    if told.transpose:
        raise layer.refuse(
            "keeps its weights transposed, which OpenCV ignores, so that nothing could be compared",
            expected="transpose: false",
            mend="transpose its first blob in the caffemodel and remove `transpose`",
        )
    return [(*shape[: axis_of(layer, told.axis, len(shape))], told.num_output)]


@_rule("Eltwise")
def _eltwise(layer: Layer, bottoms: Shapes) -> Shapes:
    coefficients = len(layer.message.eltwise_param.coeff)
    if len(bottoms) < 2 or coefficients not in (0, len(bottoms)):
        raise layer.refuse(
            f"has {len(bottoms)} bottoms and {coefficients} coefficients",
            expected="two bottoms or more, and a coefficient for each or none",
        )
    return [_alike(layer, bottoms)[0]]


@_rule("Concat")
def _concat(layer: Layer, bottoms: Shapes) -> Shapes:
    axis = concat_axis(layer, len(bottoms[0]))
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms}
    if len(rest) != 1 or len({len(shape) for shape in bottoms}) != 1:
        raise layer.refuse(f"cannot join {_told(bottoms)} along axis {axis}", expected="blobs equal on the other axes")
    return [(*bottoms[0][:axis], sum(shape[axis] for shape in bottoms), *bottoms[0][axis + 1 :])]


def concat_axis(layer: Layer, rank: int) -> int:
    told = layer.message.concat_param
    return axis_of(layer, told.concat_dim if told.HasField("concat_dim") else told.axis, rank)


@_rule("Slice")
def _slice(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = bottoms
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


@_rule("Split")
def _split(layer: Layer, bottoms: Shapes) -> Shapes:
    return [bottoms[0]] * len(layer.tops)


@_rule("Silence")
def _silence(_layer: Layer, _bottoms: Shapes) -> Shapes:
    return []


@_rule("Crop")
def _crop(layer: Layer, bottoms: Shapes) -> Shapes:
    axis, offsets = crop(layer, bottoms)
    return [(*bottoms[0][:axis], *bottoms[1][axis:])] if offsets else [bottoms[0]]


def crop(layer: Layer, bottoms: Shapes) -> tuple[int, list[int]]:
    """The first axis that a Crop cuts, and the offset on it and on each axis behind it."""
    told = layer.message.crop_param
    if len(bottoms) != 2 or len(bottoms[0]) != len(bottoms[1]):
        raise layer.refuse(f"takes {_told(bottoms)}", expected="two blobs with equally many axes")
    axis = axis_of(layer, told.axis, len(bottoms[0]))
    count = len(bottoms[0]) - axis
    given = list(told.offset)
    if len(given) not in (0, 1, count):
        raise layer.refuse(f"has {len(given)} offsets", expected=f"none, one, or one for each of {count} axes")
    offsets = given if len(given) == count else (given or [0]) * count
    for number, offset in enumerate(offsets, start=axis):
        if offset + bottoms[1][number] > bottoms[0][number]:
            raise layer.refuse(f"cuts {_told(bottoms)} at {offset} on axis {number}", expected="a cut inside the blob")
    return axis, offsets


@_rule("Reshape")
def _reshape(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    told = layer.message.reshape_param
    start = axis_of(layer, told.axis if told.axis >= 0 else told.axis + 1 + len(shape), len(shape), end=True)
    end = len(shape) if told.num_axes == -1 else start + told.num_axes
    dims = list(told.shape.dim)
    if end > len(shape) or dims.count(-1) > 1 or min(dims, default=0) < -1:
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


@_rule("Flatten")
def _flatten(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    told = layer.message.flatten_param
    start, end = axis_of(layer, told.axis, len(shape)), axis_of(layer, told.end_axis, len(shape))
    if end < start:
        raise layer.refuse(f"flattens axes {start} to {end}", expected="an end behind the start")
    return [(*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])]


@_rule("Permute")
def _permute(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    return [tuple(shape[axis] for axis in order(layer, len(shape)))]


def order(layer: Layer, rank: int) -> list[int]:
    """A Permute's axes; those that it does not name follow in their order."""
    told = [axis_of(layer, axis, rank) for axis in layer.message.permute_param.order]
    if len(set(told)) != len(told):
        raise layer.refuse(f"names an axis twice: {told}", expected="every axis once")
    return [*told, *(axis for axis in range(rank) if axis not in told)]


@_rule("PriorBox")
def _prior_box(layer: Layer, bottoms: Shapes) -> Shapes:
    return [(1, 2, caffe_priors.count(layer, bottoms))]


@_rule("Interp")
def _interp(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = _alone(layer, bottoms)
    told = layer.message.interp_param
    if len(shape) != 4 or told.pad_beg or told.pad_end or min(told.zoom_factor, told.shrink_factor) < 1:
        raise layer.refuse("has padding, or takes no N x C x H x W blob", expected="height and width, or a factor")
    if told.HasField("height") and told.HasField("width"):
        return [(*shape[:2], told.height, told.width)]
    sizes = [(size - 1) // told.shrink_factor + 1 for size in shape[2:]]
    return [(*shape[:2], *(size + (size - 1) * (told.zoom_factor - 1) for size in sizes))]


def _alone(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms) != 1:
        raise layer.refuse(f"has {len(bottoms)} bottoms", expected="one")
    return list(bottoms)


def _alike(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(set(bottoms)) != 1:
        raise layer.refuse(f"takes {_told(bottoms)}", expected="blobs of one shape")
    return bottoms


def _groups(layer: Layer, shape: Shape) -> None:
    told = layer.message.convolution_param
    if told.group < 1 or shape[1] % told.group or told.num_output % told.group or not told.num_output:
        raise layer.refuse(
            f"has {told.num_output} outputs and {shape[1]} channels in {told.group} groups",
            expected="numbers that the groups divide",
        )


def _told(shapes: Sequence[Shape]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)
