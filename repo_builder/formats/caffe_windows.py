"""Sliding windows of Caffe layers: kernel, stride, padding and dilation per axis, and the sizes that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repo_builder.formats.caffe_net import Layer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Per spatial axis: kernel, stride, padding (at both ends) and dilation."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape


def of_convolution(layer: Layer, shape: Shape) -> Window:
    """The window of a Convolution or Deconvolution over a bottom of this shape (N, C, spatial axes)."""
    told, axes = layer.message.convolution_param, len(shape) - 2
    if told.axis not in (1, 1 - len(shape)):
        raise layer.refuse(f"has axis {told.axis}", expected="axis 1: channels behind the batch")
    if axes < 1:
        raise layer.refuse(f"takes a blob of shape {list(shape)}", expected="N x C x spatial axes")
    kernel = _per_axis(layer, told, "kernel_size", "kernel", axes, 0)
    stride = _per_axis(layer, told, "stride", "stride", axes, 1)
    pad = _per_axis(layer, told, "pad", "pad", axes, 0)
    dilation = _spread(layer, "dilation", list(told.dilation), axes, 1)
    if min((*kernel, *stride, *dilation)) < 1:
        raise layer.refuse(
            f"has kernel {list(kernel)}, stride {list(stride)}, dilation {list(dilation)}", expected="1 or more"
        )
    return Window(kernel, stride, pad, dilation)


def convolved(shape: Shape, window: Window) -> Shape:
    """Spatial sizes behind a Convolution: floor((in + 2 pad - dilated kernel) / stride) + 1."""
    return tuple(
        (size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1
        for size, kernel, stride, pad, dilation in _axes(shape, window)
    )


def deconvolved(shape: Shape, window: Window) -> Shape:
    """Spatial sizes behind a Deconvolution: stride (in - 1) + dilated kernel - 2 pad."""
    return tuple(
        stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad
        for size, kernel, stride, pad, dilation in _axes(shape, window)
    )


def of_pooling(layer: Layer, shape: Shape) -> Window:
    """The window of a Pooling layer over a bottom N x C x H x W; a global one covers it.

    Raises:
        ConversionError: no kernel, or padding as large as the kernel, both of which Caffe refuses.
    """
    told = layer.message.pooling_param
    if len(shape) != 4:
        raise layer.refuse(f"takes a blob of shape {list(shape)}", expected="four axes: N x C x H x W")
    if told.global_pooling:
        if told.pad or told.pad_h or told.pad_w or any(s != 1 for s in (told.stride, told.stride_h or 1)):
            raise layer.refuse("is global and has a pad or a stride", expected="neither, as Caffe does")
        return Window(shape[2:], (1, 1), (0, 0), (1, 1))
    sizes = {}
    for name, field, default in (("kernel", "kernel_size", 0), ("stride", "stride", 1), ("pad", "pad", 0)):
        both = getattr(told, field) if told.HasField(field) else default
        sizes[name] = tuple(
            getattr(told, f"{name}_{axis}") if told.HasField(f"{name}_{axis}") else both for axis in "hw"
        )
    window = Window(sizes["kernel"], sizes["stride"], sizes["pad"], (1, 1))
    if min(window.kernel) < 1 or min(window.stride) < 1:
        raise layer.refuse(f"has kernel {list(window.kernel)} and stride {list(window.stride)}", expected="1 or more")
    if any(pad >= kernel for pad, kernel in zip(window.pad, window.kernel, strict=True)):
        raise layer.refuse(
            f"has padding {list(window.pad)}, not less than its kernel {list(window.kernel)}",
            expected="padding less than the kernel, as Caffe demands",
        )
    return window


def pooled(layer: Layer, shape: Shape, window: Window) -> Shape:
    """Spatial sizes behind Pooling: rounded up, less a last window that would begin in the padding behind the data.

    Source: BVLC/caffe, pooling_layer.cpp. ``round_mode: FLOOR`` rounds down.
    """
    told = layer.message.pooling_param
    up = told.round_mode == 0 and told.ceil_mode
    sizes = []
    for size, kernel, stride, pad, _ in _axes(shape, window):
        room = size + 2 * pad - kernel
        count = (-(-room // stride) if up else room // stride) + 1
        if any(window.pad) and (count - 1) * stride >= size + pad:
            count -= 1
        if (count - 1) * stride >= size + pad:
            raise layer.refuse(
                f"has a window behind the last value: kernel {kernel}, stride {stride}, size {size}",
                expected="windows that hold a value",
                mend="choose a stride no larger than the kernel",
            )
        sizes.append(count)
    return tuple(sizes)


def _axes(shape: Shape, window: Window) -> Sequence[tuple[int, int, int, int, int]]:
    return list(zip(shape[2:], window.kernel, window.stride, window.pad, window.dilation, strict=True))


def _per_axis(layer: Layer, told: Any, field: str, short: str, axes: int, default: int) -> Shape:
    """One number for all axes, one per axis, or the pair ``<short>_h`` and ``<short>_w``."""
    pair = [getattr(told, f"{short}_{axis}") for axis in "hw" if told.HasField(f"{short}_{axis}")]
    if pair:
        if len(pair) != 2 or axes != 2 or getattr(told, field):
            raise layer.refuse(
                f"has {short}_h or {short}_w beside {field}, alone, or not over two axes",
                expected=f"{field}, or both {short}_h and {short}_w",
            )
        return tuple(pair)
    return _spread(layer, field, list(getattr(told, field)), axes, default)


def _spread(layer: Layer, field: str, values: list[int], axes: int, default: int) -> Shape:
    if len(values) not in (0, 1, axes):
        raise layer.refuse(f"has {len(values)} values of {field}", expected=f"one, or one for each of {axes} axes")
    return tuple((values or [default]) * axes) if len(values) < 2 else tuple(values)
