"""Layers that weigh values against others: InnerProduct, BatchNorm, LRN, Normalize, MVN, Softmax."""

from __future__ import annotations

import numpy as np

from repo_builder.convert.caffe.graph import Graph, Step, Writer
from repo_builder.formats import caffe_rules


def inner_product(graph: Graph, step: Step) -> list[str]:
    told, value = step.layer.message.inner_product_param, step.values[0]
    axis = caffe_rules.axis_of(step.layer, told.axis, step.rank)
    weight, biases = step.weights[0], [graph.constant(weight) for weight in step.weights[1:]]
    if axis == 1:
        flat = value if step.rank == 2 else graph.node("Flatten", [value], axis=1)
        return [graph.node("Gemm", [flat, graph.constant(weight), *biases], transB=1)]
    matrix = weight.T
    if axis != step.rank - 1:
        value = graph.reshaped(value, (*step.bottoms[0][:axis], matrix.shape[0]))
    made = graph.node("MatMul", [value, graph.constant(matrix)])
    return [graph.node("Add", [made, *biases]) if biases else made]


def batch_norm(graph: Graph, step: Step) -> list[str]:
    """Mean and variance are sums, to be divided by the third blob."""
    told = step.layer.message.batch_norm_param
    if not told.use_global_stats:
        raise step.layer.refuse(
            "uses each batch's own statistics (use_global_stats: false)",
            expected="the statistics of training",
            mend="remove use_global_stats from the deploy net",
        )
    mean, variance, count = step.weights
    factor = 1 / float(count[0]) if count[0] else 0.0
    ones = np.ones_like(mean)
    parts = (ones, np.zeros_like(mean), mean * np.float32(factor), variance * np.float32(factor))
    inputs = [step.values[0], *(graph.constant(part) for part in parts)]
    return [graph.node("BatchNormalization", inputs, epsilon=told.eps)]


def lrn(graph: Graph, step: Step) -> list[str]:
    told, value = step.layer.message.lrn_param, step.values[0]
    size = told.local_size
    if size % 2 == 0:
        raise step.layer.refuse(f"has local_size {size}", expected="an odd size, as Caffe demands")
    if told.norm_region == 0:
        if min(told.alpha, told.beta, told.k) <= 0:
            raise step.layer.refuse(
                f"has alpha {told.alpha:g}, beta {told.beta:g} and k {told.k:g}",
                expected="more than 0: else what it divides by may be 0, or the root of a negative number",
            )
        return [graph.node("LRN", [value], size=size, alpha=told.alpha, beta=told.beta, bias=told.k)]
    squares = graph.node("Mul", [value, value])
    mean = graph.node(
        "AveragePool",
        [squares],
        kernel_shape=(size, size),
        strides=(1, 1),
        pads=[(size - 1) // 2] * 4,
        count_include_pad=1,
    )
    power = graph.node("Pow", [graph.affine(mean, told.alpha, 1.0), graph.constant(told.beta)])
    return [graph.node("Div", [value, power])]


def normalize(graph: Graph, step: Step) -> list[str]:
    """Each image, or each place of it, divided by its Euclidean length; then a factor, one or for each channel."""
    told, value = step.layer.message.norm_param, step.values[0]
    axes = [1, 2, 3] if told.across_spatial else [1]
    squares = graph.node("Mul", [value, value])
    total = graph.node("ReduceSum", [squares, graph.integers(axes)], keepdims=1)
    length = graph.node("Sqrt", [graph.affine(total, 1.0, told.eps)])
    factor = step.weights[0].reshape(-1, 1, 1)
    return [graph.node("Mul", [graph.node("Div", [value, length]), graph.constant(factor)])]


def mvn(graph: Graph, step: Step) -> list[str]:
    """Less the mean and divided by the deviation plus eps, over each channel's places or over each image."""
    told, value = step.layer.message.mvn_param, step.values[0]
    axes = list(range(1 if told.across_channels else 2, step.rank))
    if not axes:
        raise step.layer.refuse(f"takes a blob of shape {list(step.bottoms[0])}", expected="spatial axes")
    centred = graph.node("Sub", [value, graph.node("ReduceMean", [value], axes=axes, keepdims=1)])
    if not told.normalize_variance:
        return [centred]
    variance = graph.node("ReduceMean", [graph.node("Mul", [centred, centred])], axes=axes, keepdims=1)
    return [graph.node("Div", [centred, graph.affine(graph.node("Sqrt", [variance]), 1.0, told.eps)])]


def softmax(graph: Graph, step: Step) -> list[str]:
    axis = caffe_rules.axis_of(step.layer, step.layer.message.softmax_param.axis, step.rank)
    return [graph.node("Softmax", [step.values[0]], axis=axis)]


WRITERS: dict[str, Writer] = {
    "InnerProduct": inner_product,
    "BatchNorm": batch_norm,
    "LRN": lrn,
    "Normalize": normalize,
    "MVN": mvn,
    "Softmax": softmax,
}
