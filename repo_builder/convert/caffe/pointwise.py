"""Layers that compute each value by itself, or from the values at one place of several blobs."""

from __future__ import annotations

from functools import reduce
from math import log
from typing import Any

import numpy as np

from repo_builder.convert.caffe.graph import Graph, Step, Writer
from repo_builder.formats import caffe_rules


def _plain(op: str) -> Writer:
    return lambda graph, step: [graph.node(op, [step.values[0]])]


def relu(graph: Graph, step: Step) -> list[str]:
    slope = step.layer.message.relu_param.negative_slope
    if slope:
        return [graph.node("LeakyRelu", [step.values[0]], alpha=slope)]
    return [graph.node("Relu", [step.values[0]])]


def relu6(graph: Graph, step: Step) -> list[str]:
    return [graph.node("Clip", [step.values[0], graph.constant(0.0), graph.constant(6.0)])]


def prelu(graph: Graph, step: Step) -> list[str]:
    (slope,) = step.weights
    shape = (slope.size, *[1] * (step.rank - 2))
    return [graph.node("PRelu", [step.values[0], graph.constant(slope.reshape(shape))])]


def elu(graph: Graph, step: Step) -> list[str]:
    return [graph.node("Elu", [step.values[0]], alpha=step.layer.message.elu_param.alpha)]


def exp(graph: Graph, step: Step) -> list[str]:
    """base ** (shift + scale * x); base -1 stands for e."""
    told = step.layer.message.exp_param
    if told.base != -1 and told.base <= 0:
        raise step.layer.refuse(f"has the base {told.base}", expected="more than 0, or -1 for e")
    rate = 1.0 if told.base == -1 else log(told.base)
    return [graph.node("Exp", [graph.affine(step.values[0], rate * told.scale, rate * told.shift)])]


def power(graph: Graph, step: Step) -> list[str]:
    """(shift + scale * x) ** power."""
    told = step.layer.message.power_param
    value = graph.affine(step.values[0], told.scale, told.shift)
    return [value if told.power == 1 else graph.node("Pow", [value, graph.constant(told.power)])]


def eltwise(graph: Graph, step: Step) -> list[str]:
    told, values = step.layer.message.eltwise_param, list(step.values)
    operation = {0: "Mul", 1: "Add", 2: "Max"}[told.operation]
    if told.coeff:
        if operation != "Add":
            raise step.layer.refuse(
                "has coefficients without a sum", expected="coefficients for SUM alone, as in Caffe"
            )
        values = [graph.affine(value, factor, 0) for value, factor in zip(values, told.coeff, strict=True)]
    return [reduce(lambda one, other: graph.node(operation, [one, other]), values)]


def scale(graph: Graph, step: Step) -> list[str]:
    """x * factor + bias; the factor is a weight or the second bottom."""
    factor = _laid(graph, step, len(step.values) == 1)
    value = graph.node("Mul", [step.values[0], factor])
    if not step.layer.message.scale_param.bias_term:
        return [value]
    return [graph.node("Add", [value, graph.constant(_under(step, step.weights[-1]))])]


def bias(graph: Graph, step: Step) -> list[str]:
    return [graph.node("Add", [step.values[0], _laid(graph, step, len(step.values) == 1)])]


def _laid(graph: Graph, step: Step, own: bool) -> str:
    """The factors with axes of size 1 behind theirs, so that they lie along the right axes of the first bottom."""
    if own:
        return graph.constant(_under(step, step.weights[0]))
    axis, shape = caffe_rules.spread(step.layer, list(step.bottoms))
    behind = list(range(len(shape), step.rank - axis))
    return graph.node("Unsqueeze", [step.values[1], graph.integers(behind)]) if behind else step.values[1]


def _under(step: Step, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    axis, shape = caffe_rules.spread(step.layer, list(step.bottoms))
    return weight.reshape((*shape, *[1] * (step.rank - axis - len(shape))))


WRITERS: dict[str, Writer] = {
    "ReLU": relu,
    "ReLU6": relu6,
    "PReLU": prelu,
    "ELU": elu,
    "Sigmoid": _plain("Sigmoid"),
    "TanH": _plain("Tanh"),
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "Exp": exp,
    "Log": _plain("Log"),
    "Power": power,
    "Eltwise": eltwise,
    "Scale": scale,
    "Bias": bias,
}
