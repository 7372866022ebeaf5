"""Layers that move values (Slice, Concat, Crop, Reshape, Permute, Flatten, Split), Interp, and PriorBox' constants."""

from __future__ import annotations

import numpy as np

from repo_builder.convert.caffe.graph import Graph, Step, Writer
from repo_builder.formats import caffe_layout, caffe_priors


def same(_graph: Graph, step: Step) -> list[str]:
    return [step.values[0]] * len(step.layer.tops)


def cut(graph: Graph, step: Step) -> list[str]:
    axis, points = caffe_layout.cuts(step.layer, step.bottoms[0])
    if len(step.tops) == 1:
        return [step.values[0]]
    sizes = graph.integers(np.diff(points).tolist())
    return graph.nodes_outputs("Split", [step.values[0], sizes], len(step.tops), axis=axis)


def concat(graph: Graph, step: Step) -> list[str]:
    return [graph.node("Concat", step.values, axis=caffe_layout.concat_axis(step.layer, step.rank))]


def crop(graph: Graph, step: Step) -> list[str]:
    axis, offsets = caffe_layout.crop(step.layer, list(step.bottoms))
    cuts = [
        (number, offset, offset + step.tops[0][number])
        for number, offset in enumerate(offsets, start=axis)
        if step.tops[0][number] != step.bottoms[0][number]
    ]
    if not cuts:
        return [step.values[0]]
    axes, starts, ends = (graph.integers(part) for part in zip(*cuts, strict=True))
    return [graph.node("Slice", [step.values[0], starts, ends, axes])]


def reshape(graph: Graph, step: Step) -> list[str]:
    return [graph.reshaped(step.values[0], step.tops[0])]


def permute(graph: Graph, step: Step) -> list[str]:
    return [graph.node("Transpose", [step.values[0]], perm=caffe_layout.order(step.layer, step.rank))]


def shuffle_channel(graph: Graph, step: Step) -> list[str]:
    batch, channels, *places = step.bottoms[0]
    group = step.layer.message.shuffle_channel_param.group
    apart = graph.reshaped(step.values[0], (batch, group, channels // group, *places))
    turned = graph.node("Transpose", [apart], perm=(0, 2, 1, 3, 4))
    return [graph.reshaped(turned, step.bottoms[0])]


def prior_box(graph: Graph, step: Step) -> list[str]:
    return [graph.constant(caffe_priors.values(step.layer, step.bottoms))]


def interp(graph: Graph, step: Step) -> list[str]:
    value = step.values[0]
    batch = graph.node("Slice", [graph.node("Shape", [value]), graph.integers([0]), graph.integers([2])])
    sizes = graph.node("Concat", [batch, graph.integers(step.tops[0][2:])], axis=0)
    mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    return [graph.node("Resize", [value, "", "", sizes], **mode)]


WRITERS: dict[str, Writer] = {
    "Dropout": same,
    "Split": same,
    "Silence": same,
    "Slice": cut,
    "Concat": concat,
    "Crop": crop,
    "Reshape": reshape,
    "Flatten": reshape,
    "Permute": permute,
    "ShuffleChannel": shuffle_channel,
    "PriorBox": prior_box,
    "Interp": interp,
}
