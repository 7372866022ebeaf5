"""Shapes of every blob of a Caffe net, by the rules of its layers; a layer without a rule is refused here by name."""

from __future__ import annotations

from math import prod

from repo_builder.errors import ConversionError
from repo_builder.formats import caffe_layout, caffe_rules, caffe_weights
from repo_builder.formats.caffe_net import Layer, Net
from repo_builder.formats.caffe_rules import Rule, Shape, Shapes

RULES: dict[str, Rule] = {**caffe_rules.RULES, **caffe_layout.RULES}
BATCH = "batch"
_SIZES = (2, 3)
_ELEMENTS = 1 << 31

_WHY = {
    "DetectionOutput": "decodes boxes and suppresses overlapping ones (SSD), which is not converted",
    "Proposal": "proposes regions (Faster R-CNN), which is not converted",
}
_MEND = {
    "DetectionOutput": "remove it and serve the boxes, scores and priors that it takes; decode them in the client",
}


def shapes(net: Net, batch: int | None = None) -> list[tuple[Shapes, Shapes]]:
    """For every layer the shapes of its bottoms and tops; ``batch`` replaces axis 0 of every input.

    Raises:
        ConversionError: an unknown layer, or blobs that do not fit; it names the layer and its place.
    """
    known = {name: shape if batch is None else (batch, *shape[1:]) for name, shape in net.inputs}
    found = []
    for layer in net.layers:
        if layer.type not in RULES:
            raise _unknown(layer)
        bottoms = [known[name] for name in layer.bottoms]
        if not bottoms:
            raise layer.refuse("has no bottom", expected="at least one")
        tops = RULES[layer.type](layer, bottoms)
        if len(tops) != len(layer.tops):
            raise layer.refuse(f"has {len(layer.tops)} tops", expected=str(len(tops)))
        for shape in tops:
            if min(shape, default=1) < 1 or prod(shape) > _ELEMENTS:
                raise layer.refuse(
                    f"would make a blob of shape {list(shape)} of {bottoms}",
                    expected="sizes of 1 or more and at most 2**31 values",
                    mend="correct the input's sizes or the layer's parameters",
                )
        known |= zip(layer.tops, tops, strict=True)
        found.append((bottoms, tops))
    return found


def batched(net: Net) -> list[tuple[Shapes, Shapes]] | None:
    """The shapes with -1 for each size that follows the batch, or None where the net has no batch dimension.

    A net has one when axis 0 of all inputs is declared with one size, every rule holds for other sizes too, no layer's
    weights depend on it, and what varies in its outputs is the batch itself.
    """
    if len({shape[0] for _, shape in net.inputs}) != 1:
        return None
    try:
        first, second = (shapes(net, size) for size in _SIZES)
    except ConversionError:
        return None
    for layer, one, other in zip(net.layers, first, second, strict=True):
        if caffe_weights.needed(layer, one[0]) != caffe_weights.needed(layer, other[0]):
            return None
    ends = {id(layer): place for place, layer in enumerate(net.layers)}
    for _, layer, index in net.outputs:
        both = (run[ends[id(layer)]][1][index] for run in (first, second))
        if any(pair != _SIZES and pair[0] != pair[1] for pair in zip(*both, strict=True)):
            return None
    return [
        ([_open(a, b) for a, b in zip(p[0], q[0], strict=True)], [_open(a, b) for a, b in zip(p[1], q[1], strict=True)])
        for p, q in zip(first, second, strict=True)
    ]


def _open(one: Shape, other: Shape) -> Shape:
    return tuple(a if a == b else -1 for a, b in zip(one, other, strict=True))


def _unknown(layer: Layer) -> ConversionError:
    trains = layer.type.endswith("Loss") or layer.type in ("Accuracy", "SoftmaxWithLoss", "HDF5Output")
    if trains:
        return layer.refuse(
            "belongs to training",
            expected="a deploy net",
            mend="remove the layer and the inputs that only it takes (for SoftmaxWithLoss put a Softmax there)",
        )
    return layer.refuse(
        _WHY.get(layer.type, "is not converted"),
        expected="one of " + ", ".join(sorted(RULES)),
        mend=_MEND.get(layer.type, "write the net with these layers, or remove it and compute it in the client"),
    )
