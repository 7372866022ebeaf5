"""Caffe's layers in numpy (float64), written from Caffe's own definitions: a reference that shares no code with the
converter but the reading of the two files. Slow and plain; for small nets."""

# ruff: noqa: ARG005
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.formats import caffe_net, caffe_shapes, caffe_weights

Array = Any


def run(prototxt: Path, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    """The net's outputs, in its order, as float32."""
    net = caffe_net.read(prototxt)
    bottoms = [one for one, _ in caffe_shapes.shapes(net)]
    weights = caffe_weights.fitted(net, bottoms, prototxt.with_suffix(".caffemodel"))
    blobs = {name: np.asarray(inputs[name], np.float64) for name, _ in net.inputs}
    for layer, own in zip(net.layers, weights, strict=True):
        given = [blobs[name] for name in layer.bottoms]
        made = LAYERS[layer.type](layer.message, given, [one.astype(np.float64) for one in own])
        blobs.update(zip(layer.tops, made * len(layer.tops) if layer.type == "Split" else made, strict=True))
    return tuple(blobs[name].astype(np.float32) for name, _, _ in net.outputs)


def _pair(told: Any, both: str, one: str, default: int) -> tuple[int, int]:
    values = getattr(told, both)
    values = list(values) if hasattr(values, "__len__") else [values] if told.HasField(both) else []
    if told.HasField(f"{one}_h"):
        return getattr(told, f"{one}_h"), getattr(told, f"{one}_w")
    values = values or [default]
    return values[0], values[-1]


def _convolution(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.convolution_param
    if given[0].ndim != 4:
        return [_convolved_over_any_axes(told, given[0], *own)]
    (kh, kw), (sh, sw) = _pair(told, "kernel_size", "kernel", 1), _pair(told, "stride", "stride", 1)
    ph, pw = _pair(told, "pad", "pad", 0)
    dh = dw = told.dilation[0] if told.dilation else 1
    x = np.pad(given[0], ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows, columns = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((len(x), told.num_output, rows, columns))
    each, wide = x.shape[1] // told.group, told.num_output // told.group
    for group in range(told.group):
        part, filters = x[:, group * each : (group + 1) * each], own[0][group * wide : (group + 1) * wide]
        for i in range(rows):
            for j in range(columns):
                seen = part[:, :, i * sh : i * sh + dh * kh : dh, j * sw : j * sw + dw * kw : dw][:, :, :kh, :kw]
                out[:, group * wide : (group + 1) * wide, i, j] = np.einsum("nchw,ochw->no", seen, filters)
    return [out + (own[1][:, None, None] if told.bias_term else 0)]


def _convolved_over_any_axes(told: Any, x: Array, weights: Array, biases: Array) -> Array:
    axes = x.ndim - 2
    kernel, stride, pad = (
        (list(values) * axes)[:axes] or [default] * axes
        for values, default in ((told.kernel_size, 0), (told.stride, 1), (told.pad, 0))
    )
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(2, x.ndim)))
    seen = seen[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
    made = np.tensordot(seen, weights, ([1, *range(seen.ndim - axes, seen.ndim)], range(1, 2 + axes)))
    return np.moveaxis(made + biases, -1, 1)


def _deconvolution(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.convolution_param, given[0]
    (kh, kw), (sh, sw) = _pair(told, "kernel_size", "kernel", 1), _pair(told, "stride", "stride", 1)
    ph, pw = _pair(told, "pad", "pad", 0)
    rows, columns = (x.shape[2] - 1) * sh + kh, (x.shape[3] - 1) * sw + kw
    out = np.zeros((len(x), told.num_output, rows, columns))
    each, wide = x.shape[1] // told.group, told.num_output // told.group
    for group in range(told.group):
        inner, outer = slice(group * each, (group + 1) * each), slice(group * wide, (group + 1) * wide)
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                spread = np.einsum("nc,cohw->nohw", x[:, inner, i, j], own[0][inner])
                out[:, outer, i * sh : i * sh + kh, j * sw : j * sw + kw] += spread
    out = out[:, :, ph : rows - ph, pw : columns - pw]
    return [out + (own[1][:, None, None] if told.bias_term else 0)]


def _pooling(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.pooling_param, given[0]
    height, width = x.shape[2:]
    if told.global_pooling:
        (kh, kw), (sh, sw), (ph, pw) = (height, width), (1, 1), (0, 0)
    else:
        (kh, kw), (sh, sw) = _pair(told, "kernel_size", "kernel", 1), _pair(told, "stride", "stride", 1)
        ph, pw = _pair(told, "pad", "pad", 0)
    rounded = np.floor if told.round_mode == 1 else np.ceil
    rows = int(rounded((height + 2 * ph - kh) / sh)) + 1
    columns = int(rounded((width + 2 * pw - kw) / sw)) + 1
    if ph or pw:
        rows -= (rows - 1) * sh >= height + ph
        columns -= (columns - 1) * sw >= width + pw
    out = np.zeros((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * sh - ph, j * sw - pw
            bottom, right = min(top + kh, height + ph), min(left + kw, width + pw)
            size = (bottom - top) * (right - left)
            seen = x[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            out[:, :, i, j] = seen.max((2, 3)) if told.pool == 0 else seen.sum((2, 3)) / size
    return [out]


def _inner_product(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    axis = layer.inner_product_param.axis
    flat = given[0].reshape(*given[0].shape[:axis], -1)
    return [flat @ own[0].T + (own[1] if len(own) > 1 else 0)]


def _batch_norm(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    mean, variance = (one.reshape(-1, 1, 1) / own[2][0] for one in own[:2])
    return [(given[0] - mean) / np.sqrt(variance + layer.batch_norm_param.eps)]


def _scale(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.scale_param
    factor = own[0] if len(given) == 1 else given[1]
    made = given[0] * _along(given[0], factor, told.axis)
    return [made + _along(given[0], own[-1], told.axis) if told.bias_term else made]


def _bias(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    return [given[0] + _along(given[0], own[0] if len(given) == 1 else given[1], layer.bias_param.axis)]


def _along(x: Array, factor: Array, axis: int) -> Array:
    return factor.reshape(*factor.shape, *[1] * (x.ndim - axis - factor.ndim))


def _lrn(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.lrn_param, given[0]
    half, total = told.local_size // 2, np.zeros_like(x)
    if told.norm_region == 0:
        for channel in range(x.shape[1]):
            total[:, channel] = (x[:, max(channel - half, 0) : channel + half + 1] ** 2).sum(1)
        return [x / (told.k + told.alpha / told.local_size * total) ** told.beta]
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            seen = x[:, :, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
            total[:, :, i, j] = (seen**2).sum((2, 3)) / told.local_size**2
    return [x / (1 + told.alpha * total) ** told.beta]


def _prelu(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    slope = own[0].reshape(-1, *[1] * (given[0].ndim - 2))
    return [np.maximum(given[0], 0) + slope * np.minimum(given[0], 0)]


def _elu(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    x = given[0]
    return [np.where(x > 0, x, layer.elu_param.alpha * np.expm1(np.minimum(x, 0)))]


def _relu(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    return [np.maximum(given[0], 0) + layer.relu_param.negative_slope * np.minimum(given[0], 0)]


def _exp(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.exp_param
    return [(np.e if told.base == -1 else told.base) ** (told.shift + told.scale * given[0])]


def _log(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.log_param
    return [np.log(told.shift + told.scale * given[0]) / (1 if told.base == -1 else np.log(told.base))]


def _power(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.power_param
    return [(told.shift + told.scale * given[0]) ** told.power]


def _eltwise(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.eltwise_param
    if told.operation == 1:
        return [sum(c * x for c, x in zip(list(told.coeff) or [1] * len(given), given, strict=True))]
    made = given[0]
    for x in given[1:]:
        made = made * x if told.operation == 0 else np.maximum(made, x)
    return [made]


def _slice(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.slice_param
    axis = told.slice_dim if told.HasField("slice_dim") else told.axis
    return list(np.split(given[0], list(told.slice_point) or len(layer.top), axis))


def _crop(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, cut = layer.crop_param, [slice(None)] * given[0].ndim
    for axis in range(told.axis, given[0].ndim):
        offset = told.offset[min(axis - told.axis, len(told.offset) - 1)] if told.offset else 0
        cut[axis] = slice(offset, offset + given[1].shape[axis])
    return [given[0][tuple(cut)]]


def _reshape(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.reshape_param, given[0]
    end = x.ndim if told.num_axes == -1 else told.axis + told.num_axes
    dims = [x.shape[told.axis + place] if size == 0 else size for place, size in enumerate(told.shape.dim)]
    return [x.reshape(*x.shape[: told.axis], *dims, *x.shape[end:])]


def _flatten(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.flatten_param, given[0]
    end = told.end_axis % x.ndim
    return [x.reshape(*x.shape[: told.axis], -1, *x.shape[end + 1 :])]


def _softmax(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    axis = layer.softmax_param.axis
    made = np.exp(given[0] - given[0].max(axis, keepdims=True))
    return [made / made.sum(axis, keepdims=True)]


def _normalize(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.norm_param, given[0]
    length = np.sqrt((x**2).sum((1, 2, 3) if told.across_spatial else 1, keepdims=True) + told.eps)
    return [x / length * own[0].reshape(-1, 1, 1)]


def _mvn(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.mvn_param, given[0]
    axes = (1, 2, 3) if told.across_channels else (2, 3)
    x = x - x.mean(axes, keepdims=True)
    return [x / (np.sqrt((x**2).mean(axes, keepdims=True)) + told.eps) if told.normalize_variance else x]


def _shuffle(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    x, group = given[0], layer.shuffle_channel_param.group
    order = [part * (x.shape[1] // group) + place for place in range(x.shape[1] // group) for part in range(group)]
    return [x[:, order]]


def _prior_box(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told = layer.prior_box_param
    (rows, columns), (height, width) = given[0].shape[2:], given[1].shape[2:]
    down, across = (told.step, told.step) if told.step else (height / rows, width / columns)
    down, across = told.step_h or down, told.step_w or across
    ratios = []
    for ratio in told.aspect_ratio:
        ratios += [ratio, 1 / ratio] if told.flip else [ratio]
    boxes = []
    for i in range(rows):
        for j in range(columns):
            x, y = (j + told.offset) * across, (i + told.offset) * down
            sizes = [(told.min_size[0],) * 2, ((told.min_size[0] * told.max_size[0]) ** 0.5,) * 2]
            sizes += [(told.min_size[0] * ratio**0.5, told.min_size[0] / ratio**0.5) for ratio in ratios]
            for w, h in sizes:
                boxes += [(x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height]
    corners = np.clip(boxes, 0, 1) if told.clip else np.array(boxes)
    return [np.stack([corners, np.resize(np.array(told.variance or [0.1]), len(boxes))])[None]]


def _interp(layer: Any, given: list[Array], own: list[Array]) -> list[Array]:
    told, x = layer.interp_param, given[0]
    for axis, size in ((2, told.height), (3, told.width)):
        old = x.shape[axis]
        size = size or old + (old - 1) * (told.zoom_factor - 1)
        at = np.arange(size) * (old - 1) / (size - 1)
        low = np.minimum(at.astype(int), old - 2)
        part = (at - low).reshape(-1, *[1] * (3 - axis))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, low + 1, axis) * part
    return [x]


LAYERS: dict[str, Callable[[Any, list[Array], list[Array]], list[Array]]] = {
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "LRN": _lrn,
    "ReLU": _relu,
    "ReLU6": lambda layer, given, own: [np.clip(given[0], 0, 6)],
    "PReLU": _prelu,
    "ELU": _elu,
    "Sigmoid": lambda layer, given, own: [1 / (1 + np.exp(-given[0]))],
    "TanH": lambda layer, given, own: [np.tanh(given[0])],
    "AbsVal": lambda layer, given, own: [np.abs(given[0])],
    "BNLL": lambda layer, given, own: [np.logaddexp(given[0], 0)],
    "Exp": _exp,
    "Log": _log,
    "Power": _power,
    "Eltwise": _eltwise,
    "Slice": _slice,
    "Concat": lambda layer, given, own: [np.concatenate(given, layer.concat_param.axis)],
    "Crop": _crop,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": lambda layer, given, own: [given[0].transpose(list(layer.permute_param.order))],
    "Softmax": _softmax,
    "Normalize": _normalize,
    "MVN": _mvn,
    "ShuffleChannel": _shuffle,
    "PriorBox": _prior_box,
    "Interp": _interp,
    "Dropout": lambda layer, given, own: [given[0]],
    "Split": lambda layer, given, own: [given[0]],
    "Silence": lambda layer, given, own: [],
}
