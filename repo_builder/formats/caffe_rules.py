"""By type of layer: the shapes of a Caffe layer's tops for those of its bottoms, and the parameters behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from repo_builder.errors import ConversionError
from repo_builder.formats import caffe_windows
from repo_builder.formats.caffe_net import Layer

Shape = tuple[int, ...]
Shapes = list[Shape]
Rule = Callable[[Layer, Shapes], Shapes]


def axis_of(layer: Layer, axis: int, rank: int, *, end: bool = False) -> int:
    """An axis from 0; negative ones count from the end. ``end`` allows the rank itself.

    Raises:
        ConversionError: the blob has no such axis.
    """
    found = axis + rank if axis < 0 else axis
    if not 0 <= found < rank + end:
        raise layer.refuse(f"has axis {axis} over a blob of {rank} axes", expected=f"{-rank} to {rank - 1}")
    return found


def _same(layer: Layer, bottoms: Shapes) -> Shapes:
    return alone(layer, bottoms)


def image(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms[0]) != 4:
        raise layer.refuse(f"takes a blob of shape {list(bottoms[0])}", expected="four axes: N x C x H x W")
    return alone(layer, bottoms)


def _prelu(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms[0]) < 2:
        raise layer.refuse(f"takes a blob of shape {list(bottoms[0])}", expected="channels on axis 1")
    return alone(layer, bottoms)


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
    if count < -1 or (count >= 0 and len(shape) != count) or (len(bottoms) == 2 and shape != bottoms[1]):
        factors = list(bottoms[1]) if len(bottoms) == 2 else f"{count} axes"
        raise layer.refuse(f"cannot lay {factors} over {list(whole)} from axis {axis}", expected="equal sizes there")
    return axis, shape


def _convolution(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    window = caffe_windows.of_convolution(layer, shape)
    _groups(layer, shape)
    return [(shape[0], layer.message.convolution_param.num_output, *caffe_windows.convolved(shape, window))]


def _deconvolution(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    window = caffe_windows.of_convolution(layer, shape)
    _groups(layer, shape)
    if set(window.dilation) != {1}:
        raise _ignored(layer, "dilation", "write zeros between the values of its weights, with a larger kernel")
    return [(shape[0], layer.message.convolution_param.num_output, *caffe_windows.deconvolved(shape, window))]


def _pooling(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    if layer.message.pooling_param.pool == 2:
        raise layer.refuse("is stochastic", expected="MAX or AVE")
    return [(*shape[:2], *caffe_windows.pooled(layer, shape, caffe_windows.of_pooling(layer, shape)))]


def _inner_product(layer: Layer, bottoms: Shapes) -> Shapes:
    (shape,) = alone(layer, bottoms)
    told = layer.message.inner_product_param
    if told.transpose:
        raise _ignored(layer, "transpose", "transpose its first blob in the caffemodel and remove `transpose`")
    return [(*shape[: axis_of(layer, told.axis, len(shape))], told.num_output)]


def _log(layer: Layer, bottoms: Shapes) -> Shapes:
    told = layer.message.log_param
    if (told.base, told.scale, told.shift) != (-1, 1, 0):
        raise _ignored(layer, "base, scale and shift", "write them as Power layers before and behind it")
    return alone(layer, bottoms)


def _eltwise(layer: Layer, bottoms: Shapes) -> Shapes:
    coefficients = len(layer.message.eltwise_param.coeff)
    if len(bottoms) < 2 or coefficients not in (0, len(bottoms)):
        raise layer.refuse(
            f"has {len(bottoms)} bottoms and {coefficients} coefficients",
            expected="two bottoms or more, and a coefficient for each or none",
        )
    return [_alike(layer, bottoms)[0]]


def alone(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(bottoms) != 1:
        raise layer.refuse(f"has {len(bottoms)} bottoms", expected="one")
    return list(bottoms)


def _alike(layer: Layer, bottoms: Shapes) -> Shapes:
    if len(set(bottoms)) != 1:
        raise layer.refuse(f"takes {told_shapes(bottoms)}", expected="blobs of one shape")
    return bottoms


def _ignored(layer: Layer, what: str, mend: str) -> ConversionError:
    return layer.refuse(
        f"has {what}, which OpenCV, the reference, ignores: nothing could be compared",
        expected=f"a layer without {what}",
        mend=mend,
    )


def _groups(layer: Layer, shape: Shape) -> None:
    told = layer.message.convolution_param
    if told.group < 1 or shape[1] % told.group or told.num_output % told.group or not told.num_output:
        raise layer.refuse(
            f"has {told.num_output} outputs and {shape[1]} channels in {told.group} groups",
            expected="numbers that the groups divide",
        )


def told_shapes(shapes: Sequence[Shape]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)


RULES: dict[str, Rule] = {
    "ReLU": _same,
    "ReLU6": _same,
    "PReLU": _prelu,
    "ELU": _same,
    "Sigmoid": _same,
    "TanH": _same,
    "AbsVal": _same,
    "BNLL": _same,
    "Exp": _same,
    "Log": _log,
    "Power": _same,
    "Dropout": _same,
    "BatchNorm": _same,
    "Softmax": _same,
    "MVN": _same,
    "LRN": image,
    "Normalize": image,
    "Scale": _scaled,
    "Bias": _scaled,
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "Eltwise": _eltwise,
}
"""By type: the shapes of the tops for those of the bottoms."""
