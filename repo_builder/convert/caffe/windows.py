"""Convolution, Deconvolution and Pooling."""

from __future__ import annotations

from repo_builder.convert.caffe.graph import Graph, Step, Writer
from repo_builder.formats import caffe_windows
from repo_builder.formats.caffe_windows import Window


def convolution(graph: Graph, step: Step) -> list[str]:
    return _convolved(graph, step, "Conv")


def deconvolution(graph: Graph, step: Step) -> list[str]:
    return _convolved(graph, step, "ConvTranspose")


def _convolved(graph: Graph, step: Step, op: str) -> list[str]:
    """Both keep the order of axes in their weights that ONNX has."""
    window = caffe_windows.of_convolution(step.layer, step.bottoms[0])
    weights = [graph.constant(weight) for weight in step.weights]
    made = graph.node(
        op,
        [step.values[0], *weights],
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=window.pad * 2,
        dilations=window.dilation,
        group=step.layer.message.convolution_param.group,
    )
    return [made]


def pooling(graph: Graph, step: Step) -> list[str]:
    told, shape, value = step.layer.message.pooling_param, step.bottoms[0], step.values[0]
    maximum = told.pool == 0
    if told.global_pooling:
        return [graph.node("GlobalMaxPool" if maximum else "GlobalAveragePool", [value])]
    window = caffe_windows.of_pooling(step.layer, shape)
    behind = _behind(step, window)
    if maximum:
        return [graph.node("MaxPool", [value], **_sizes(window), pads=(*window.pad, *behind))]
    return [_average(graph, value, window, behind)]


def _average(graph: Graph, value: str, window: Window, behind: tuple[int, ...]) -> str:
    """The sum over what lies in a window, divided by how much of it lies in the data with its padding on both sides.

    So Caffe counts padding, but not what hangs over behind it. Where both occur, zeros are laid around the data first.
    """
    if not any(window.pad):
        return graph.node("AveragePool", [value], **_sizes(window), pads=(0, 0, *behind), count_include_pad=0)
    if all(end <= pad for end, pad in zip(behind, window.pad, strict=True)):
        return graph.node("AveragePool", [value], **_sizes(window), pads=(*window.pad, *behind), count_include_pad=1)
    around = graph.integers((0, 0, *window.pad, 0, 0, *window.pad))
    padded = graph.node("Pad", [value, around])
    over = [max(end - pad, 0) for end, pad in zip(behind, window.pad, strict=True)]
    return graph.node("AveragePool", [padded], **_sizes(window), pads=(0, 0, *over), count_include_pad=0)


def _behind(step: Step, window: Window) -> tuple[int, ...]:
    """How far the last window reaches behind the data, on each axis."""
    axes = zip(step.bottoms[0][2:], step.tops[0][2:], window.kernel, window.stride, window.pad, strict=True)
    return tuple(max((count - 1) * stride + kernel - size - pad, 0) for size, count, kernel, stride, pad in axes)


def _sizes(window: Window) -> dict[str, tuple[int, ...]]:
    return {"kernel_shape": window.kernel, "strides": window.stride}


WRITERS: dict[str, Writer] = {"Convolution": convolution, "Deconvolution": deconvolution, "Pooling": pooling}
