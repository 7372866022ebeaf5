"""A net told so that OpenCV computes what Caffe does, where OpenCV would take the same words otherwise.

Seen with OpenCV 4.14.0: layers of phase TRAIN are run; ``k`` of LRN and ``slice_dim`` are ignored; unset ``alpha`` of
LRN, ``clip`` of PriorBox and ``pool`` of a global Pooling have other defaults, and ``variance`` of PriorBox has none;
``round_mode`` is called ``ceil_mode``; there is no Bias, but a Scale with ``bias_term`` and one blob is one; a
Convolution goes by the name of its top.
"""

from __future__ import annotations

from typing import Any

from repo_builder.formats import caffe_schema
from repo_builder.formats.caffe_net import Layer, Net


def text(net: Net) -> str:
    """The prototxt to give to OpenCV; empty where the user's own says the same to both."""
    from google.protobuf import text_format

    told = caffe_schema.net()
    told.name = net.name
    for name, sizes in net.inputs:
        told.input.append(name)
        told.input_shape.add().dim.extend(sizes)
    changes = 0
    for layer in net.layers:
        written = told.layer if isinstance(layer.message.type, str) else told.layers
        made = written.add()
        made.CopyFrom(layer.message)
        made.ClearField("include")
        made.ClearField("exclude")
        changes += any(change(layer, made) for change in _CHANGES)
        if (behind := _factor(layer, made)) is not None:
            written.add().CopyFrom(behind)
            changes += 1
    return str(text_format.MessageToString(told)) if changes or net.left_out else ""


def maker(layer: Layer) -> str:
    """The name by which OpenCV knows the layer whose top a blob is."""
    if _scaled(layer):
        return f"{layer.name}/k"
    return layer.tops[0] if layer.type == "Convolution" else layer.runs_as


def _scaled(layer: Layer) -> bool:
    told = layer.message.lrn_param
    return layer.type == "LRN" and told.norm_region == 0 and told.k != 1


def _factor(layer: Layer, made: Any) -> Any:
    """LRN with k is k ** -beta times the one with alpha / k and without it; the factor is a Power layer."""
    if not _scaled(layer):
        return None
    told, inner = made.lrn_param, f"{layer.tops[0]}/k"
    behind = type(made)(name=f"{layer.name}/k", bottom=[inner], top=[layer.tops[0]])
    behind.type = "Power" if isinstance(made.type, str) else 26
    behind.power_param.scale = told.k**-told.beta
    made.top[:] = [inner]
    told.alpha = told.alpha / told.k
    told.ClearField("k")
    return behind


def _lrn(layer: Layer, made: Any) -> bool:
    if layer.type != "LRN" or made.lrn_param.HasField("alpha"):
        return False
    made.lrn_param.alpha = made.lrn_param.alpha
    return True


def _priors(layer: Layer, made: Any) -> bool:
    told = made.prior_box_param
    if layer.type != "PriorBox" or (told.HasField("clip") and told.variance):
        return False
    told.clip = told.clip
    if not told.variance:
        told.variance.append(0.1)
    return True


def _slice(layer: Layer, made: Any) -> bool:
    told = made.slice_param
    if layer.type != "Slice" or not told.HasField("slice_dim"):
        return False
    told.axis = told.slice_dim
    told.ClearField("slice_dim")
    return True


def _pooling(layer: Layer, made: Any) -> bool:
    told = made.pooling_param
    if layer.type != "Pooling" or (told.HasField("pool") and not told.HasField("round_mode")):
        return False
    told.pool = told.pool
    if told.HasField("round_mode"):
        told.ceil_mode = told.round_mode == 0
        told.ClearField("round_mode")
    return True


def _bias(layer: Layer, made: Any) -> bool:
    if layer.type != "Bias":
        return False
    made.type = "Scale"
    made.scale_param.axis, made.scale_param.num_axes = made.bias_param.axis, made.bias_param.num_axes
    made.scale_param.bias_term = True
    made.ClearField("bias_param")
    return True


_CHANGES = (_lrn, _priors, _slice, _pooling, _bias)
