"""Small Caffe nets with random weights: one for each layer and its variants, written as prototxt and caffemodel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.formats import caffe_net, caffe_schema, caffe_shapes, caffe_weights

IMAGE = (1, 6, 7, 9)
VECTOR = (1, 5)


def layer(
    kind: str,
    parameters: str = "",
    *,
    name: str = "tried",
    bottoms: Sequence[str] = ("data",),
    tops: Sequence[str] = ("out",),
) -> str:
    """The text of one layer."""
    ends = "".join(f' bottom: "{one}"' for one in bottoms) + "".join(f' top: "{one}"' for one in tops)
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {parameters} }}\n'


def net(layers: str, **inputs: Sequence[int]) -> str:
    """A deploy net; the input is ``data``, an image, unless others are named."""
    declared = inputs or {"data": IMAGE}
    text = 'name: "tried"\n'
    for name, sizes in declared.items():
        dims = " ".join(f"dim: {size}" for size in sizes)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
    return text + layers


def save(text: str, folder: Path, *, half: bool = False, old: bool = False, name: str = "net") -> Path:
    """Write the pair and give the prototxt's path; weights are random, variances and factors positive.

    Args:
        half: 16-bit values in fields 10 and 12, as OpenCV's shrinkCaffeModel writes them.
        old: blobs with num, channels, height and width, in ``layers``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.prototxt"
    path.write_text(text, encoding="utf-8")
    read = caffe_net.read(path)
    shapes = caffe_shapes.shapes(read)
    random = np.random.default_rng(3)
    message = caffe_schema.weights()
    for one, (bottoms, _) in zip(read.layers, shapes, strict=True):
        made = (message.layers if old else message.layer).add(name=one.name.encode())
        if not old:
            made.type = one.type.encode()
        for number, shape in enumerate(caffe_weights.needed(one, bottoms)):
            values = random.standard_normal(shape).astype(np.float32) * 0.5
            if one.type == "BatchNorm":
                values = np.float32([2.5]) if number == 2 else np.abs(values) + np.float32(0.3)
            blob(made.blobs.add(), values, half=half, old=old)
    (folder / f"{name}.caffemodel").write_bytes(message.SerializeToString())
    return path


def blob(message: Any, values: np.ndarray[Any, Any], *, half: bool = False, old: bool = False) -> None:
    if old:
        sizes = (1,) * (4 - values.ndim) + values.shape
        message.num, message.channels, message.height, message.width = sizes
    else:
        message.shape.dim.extend(values.shape)
    if half:
        message.raw_data_type, message.raw_data = 2, values.astype("<f2").tobytes()
    else:
        message.data.append(values.astype("<f4").tobytes())


def _two(kind: str, parameters: str = "", **shapes: Sequence[int]) -> str:
    return net(layer(kind, parameters, bottoms=("data", "other")), data=IMAGE, **(shapes or {"other": IMAGE}))


def _convolution(parameters: str, kind: str = "Convolution", sizes: Sequence[int] = IMAGE) -> str:
    return net(layer(kind, f"convolution_param {{ {parameters} }}"), data=sizes)


def _pooling(parameters: str, sizes: Sequence[int] = IMAGE) -> str:
    return net(layer("Pooling", f"pooling_param {{ {parameters} }}"), data=sizes)


def _vector(kind: str, parameters: str = "") -> str:
    return net(layer(kind, parameters), data=VECTOR)


_POOLS = {
    "ceil": "kernel_size: 3 stride: 2",
    "padded": "kernel_size: 3 stride: 2 pad: 1",
    "overhang": "kernel_size: 3 stride: 3 pad: 1",
    "axes": "kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0",
    "wide": "kernel_size: 4 stride: 3 pad: 2",
    "global": "global_pooling: true",
    "clipped": "kernel_size: 2 stride: 2 pad: 1",
}
_PRIORS = (
    "min_size: 3 max_size: 5 aspect_ratio: 2 aspect_ratio: 3 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
)

_CUBE = (
    "num_output: 4 kernel_size: 3 kernel_size: 2 kernel_size: 3 pad: 1 pad: 0 pad: 1 stride: 1 stride: 1 stride: 2 "
    "dilation: 1 dilation: 1 dilation: 1"
)

NETS: Mapping[str, str] = {
    "convolution": _convolution("num_output: 4 kernel_size: 3"),
    "convolution-stride-pad": _convolution("num_output: 4 kernel_size: 3 stride: 2 pad: 1 bias_term: false"),
    "convolution-groups": _convolution("num_output: 6 kernel_size: 3 group: 3"),
    "convolution-depthwise": _convolution("num_output: 6 kernel_size: 3 group: 6 pad: 1"),
    "convolution-dilation": _convolution("num_output: 4 kernel_size: 3 dilation: 2 pad: 2"),
    "convolution-axes": _convolution("num_output: 4 kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 stride_h: 2 stride_w: 1"),
    "convolution-lists": _convolution("num_output: 4 kernel_size: 2 kernel_size: 3 pad: 1 pad: 0 stride: 1 stride: 2"),
    "convolution-one-axis": _convolution("num_output: 4 kernel_size: 3 pad: 1", sizes=(1, 2, 9)),
    "convolution-three-axes": _convolution(_CUBE, sizes=(1, 2, 4, 5, 6)),
    "deconvolution": _convolution("num_output: 4 kernel_size: 3 stride: 2 pad: 1", "Deconvolution"),
    "deconvolution-groups": _convolution(
        "num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 6 bias_term: false", "Deconvolution"
    ),
    "deconvolution-axes": _convolution(
        "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2", "Deconvolution"
    ),
    **{f"pooling-max-{name}": _pooling(told) for name, told in _POOLS.items()},
    **{f"pooling-average-{name}": _pooling(f"pool: AVE {told}") for name, told in _POOLS.items()},
    "pooling-floor": _pooling("kernel_size: 2 stride: 2 round_mode: FLOOR"),
    "inner-product": net(layer("InnerProduct", "inner_product_param { num_output: 4 }")),
    "inner-product-vector": _vector("InnerProduct", "inner_product_param { num_output: 4 bias_term: false }"),
    "inner-product-axis": net(layer("InnerProduct", "inner_product_param { num_output: 4 axis: 2 }")),
    "batch-norm": net(layer("BatchNorm", "batch_norm_param { eps: 0.001 }")),
    "batch-norm-scale": net(
        layer("BatchNorm", tops=("data",)) + layer("Scale", "scale_param { bias_term: true }", name="scaled")
    ),
    "scale": net(layer("Scale")),
    "scale-axes": net(layer("Scale", "scale_param { axis: 2 num_axes: 2 bias_term: true }")),
    "scale-rest": net(layer("Scale", "scale_param { axis: 1 num_axes: -1 }")),
    "scale-two": _two("Scale", "scale_param { axis: 0 }", other=(1, 6)),
    "scale-two-whole": _two("Scale", "scale_param { axis: 0 }"),
    "bias": net(layer("Bias")),
    "bias-two": _two("Bias", "bias_param { axis: 0 }", other=(1, 6)),
    "train-left-out": net(
        layer("ReLU", "include { phase: TRAIN }") + layer("TanH", "include { phase: TEST }", name="t")
    ),
    "lrn": net(layer("LRN", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.75 k: 2 }")),
    "lrn-default": net(layer("LRN", "lrn_param { local_size: 3 }")),
    "lrn-within": net(layer("LRN", "lrn_param { local_size: 3 alpha: 0.3 beta: 0.75 norm_region: WITHIN_CHANNEL }")),
    "relu": net(layer("ReLU")),
    "relu-in-place": net(layer("Power", "power_param { shift: 0.1 }") + layer("ReLU", name="r", bottoms=("out",))),
    "relu-slope": net(layer("ReLU", "relu_param { negative_slope: 0.1 }")),
    "relu6": net(layer("ReLU6")),
    "prelu": net(layer("PReLU")),
    "prelu-vector": _vector("PReLU"),
    "prelu-shared": net(layer("PReLU", "prelu_param { channel_shared: true }")),
    "elu": net(layer("ELU", "elu_param { alpha: 0.5 }")),
    "sigmoid": net(layer("Sigmoid")),
    "tanh": net(layer("TanH")),
    "absval": net(layer("AbsVal")),
    "bnll": net(layer("BNLL")),
    "exp": net(layer("Exp", "exp_param { scale: 0.02 shift: 0.2 }")),
    "exp-base": net(layer("Exp", "exp_param { base: 2 scale: 0.02 shift: 0.2 }")),
    "log": net(layer("AbsVal", tops=("a",)) + layer("Log", name="l", bottoms=("a",))),
    "power": net(layer("Power", "power_param { power: 2 scale: 0.5 shift: 1.5 }")),
    "power-linear": net(layer("Power", "power_param { scale: -0.5 shift: 1.5 }")),
    "eltwise-sum": _two("Eltwise"),
    "eltwise-coefficients": _two("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }"),
    "eltwise-three": net(
        layer("Eltwise", "eltwise_param { coeff: 1 coeff: 2 coeff: -3 }", bottoms=("data", "other", "third")),
        data=IMAGE,
        other=IMAGE,
        third=IMAGE,
    ),
    "eltwise-product": _two("Eltwise", "eltwise_param { operation: PROD }"),
    "eltwise-max": _two("Eltwise", "eltwise_param { operation: MAX }"),
    "slice": net(
        layer("Slice", tops=("a", "b", "c"))
        + "".join(layer("TanH", name=f"t{one}", bottoms=(one,), tops=(f"t{one}",)) for one in "abc")
    ),
    "slice-points": net(layer("Slice", "slice_param { axis: 2 slice_point: 2 slice_point: 3 }", tops=("a", "b", "c"))),
    "slice-dim": net(layer("Slice", "slice_param { slice_dim: 3 slice_point: 4 }", tops=("a", "b"))),
    "concat": _two("Concat", other=(1, 2, 7, 9)),
    "concat-axis": _two("Concat", "concat_param { axis: 3 }"),
    "crop": _two("Crop", "crop_param { axis: 2 offset: 1 offset: 2 }", other=(1, 6, 4, 5)),
    "crop-default": _two("Crop", other=(1, 6, 4, 5)),
    "reshape": net(layer("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: -1 dim: 9 } }")),
    "reshape-axis": net(layer("Reshape", "reshape_param { shape { dim: 2 dim: -1 } axis: 1 num_axes: 1 }")),
    "permute": net(layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }")),
    "flatten": net(layer("Flatten")),
    "flatten-axes": net(layer("Flatten", "flatten_param { axis: 2 end_axis: 3 }")),
    "softmax": net(layer("Softmax")),
    "softmax-last": net(layer("Softmax", "softmax_param { axis: -1 }")),
    "softmax-axis": net(layer("Softmax", "softmax_param { axis: 3 }")),
    "softmax-vector": _vector("Softmax"),
    "normalize": net(layer("Normalize", "norm_param { across_spatial: false channel_shared: false }")),
    "normalize-spatial": net(layer("Normalize", "norm_param { across_spatial: true channel_shared: true }")),
    "mvn": net(layer("MVN")),
    "mvn-across": net(layer("MVN", "mvn_param { across_channels: true normalize_variance: false }")),
    "shuffle-channel": net(layer("ShuffleChannel", "shuffle_channel_param { group: 3 }")),
    "interp": net(layer("Interp", "interp_param { height: 11 width: 13 }")),
    "interp-zoom": net(layer("Interp", "interp_param { zoom_factor: 2 }")),
    "prior-box": _two("PriorBox", f"prior_box_param {{ {_PRIORS} }}", other=(1, 3, 30, 40)),
    "prior-box-clip": _two(
        "PriorBox", f"prior_box_param {{ {_PRIORS} flip: false clip: true step: 5 offset: 0.3 }}", other=(1, 3, 30, 40)
    ),
    "prior-box-steps": _two(
        "PriorBox",
        "prior_box_param { min_size: 3 max_size: 6 step_h: 5 step_w: 6 aspect_ratio: 2 }",
        other=(1, 3, 30, 40),
    ),
    "dropout-split-silence": net(
        layer("Dropout", tops=("d",))
        + layer("Split", name="s", bottoms=("d",), tops=("x", "y"))
        + layer("Silence", name="z", bottoms=("y",), tops=())
        + layer("TanH", name="t", bottoms=("x",))
    ),
}
"""By name: the text of a net that has the layer, in one of its variants."""


def _convolved(name: str, bottom: str, outputs: int, kernel: int, more: str = "") -> str:
    told = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} {more} }}"
    return layer("Convolution", told, name=name, bottoms=(bottom,), tops=(name,))


def _then(kind: str, bottom: str, top: str, parameters: str = "") -> str:
    return layer(kind, parameters, name=f"{kind.lower()}_{top}", bottoms=(bottom,), tops=(top,))


_AVERAGE = "pooling_param { pool: AVE global_pooling: true }"
_PERMUTED = "permute_param { order: 0 order: 2 order: 3 order: 1 }"

WHOLE: Mapping[str, str] = {
    "segmentation": net(
        _convolved("conv1", "data", 8, 3, "pad: 10")
        + _then("ReLU", "conv1", "conv1")
        + _then("Pooling", "conv1", "pool1", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
        + _convolved("score", "pool1", 5, 1)
        + _then(
            "Deconvolution",
            "score",
            "up",
            "convolution_param { num_output: 5 kernel_size: 4 stride: 2 bias_term: false group: 5 }",
        )
        + layer("Crop", "crop_param { axis: 2 offset: 5 }", bottoms=("up", "data")),
        data=(1, 3, 21, 25),
    ),
    "detection": net(
        _convolved("conv1", "data", 8, 3, "pad: 1 stride: 2")
        + _then("ReLU", "conv1", "conv1")
        + _then("Normalize", "conv1", "norm", "norm_param { across_spatial: false channel_shared: false }")
        + _convolved("loc", "norm", 16, 3, "pad: 1")
        + _then("Permute", "loc", "loc_turned", _PERMUTED)
        + _then("Flatten", "loc_turned", "mbox_loc")
        + _convolved("conf", "norm", 12, 3, "pad: 1")
        + _then("Permute", "conf", "conf_turned", _PERMUTED)
        + _then("Flatten", "conf_turned", "conf_flat")
        + _then("Reshape", "conf_flat", "conf_rows", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }")
        + _then("Softmax", "conf_rows", "conf_softmax", "softmax_param { axis: 2 }")
        + _then("Flatten", "conf_softmax", "mbox_conf")
        + layer("PriorBox", f"prior_box_param {{ {_PRIORS} }}", bottoms=("norm", "data"), tops=("mbox_prior",)),
        data=(1, 3, 20, 30),
    ),
    "mobile": net(
        _convolved("dw", "data", 3, 3, "group: 3 pad: 1 bias_term: false")
        + _then("BatchNorm", "dw", "dw")
        + _then("Scale", "dw", "dw", "scale_param { bias_term: true }")
        + _then("ReLU", "dw", "dw")
        + _convolved("pw", "dw", 10, 1)
        + _then("Pooling", "pw", "pooled", _AVERAGE)
        + _then("Softmax", "pooled", "prob"),
        data=(1, 3, 16, 16),
    ),
    "squeeze-and-excite": net(
        _convolved("a", "data", 6, 1)
        + _then("Pooling", "a", "pooled", _AVERAGE)
        + _convolved("down", "pooled", 2, 1)
        + _then("ReLU", "down", "down")
        + _convolved("up", "down", 6, 1)
        + _then("Sigmoid", "up", "up")
        + _then("Reshape", "up", "rows", "reshape_param { shape { dim: 0 dim: 0 } num_axes: 4 }")
        + layer("Scale", "scale_param { axis: 0 }", bottoms=("a", "rows")),
        data=(1, 3, 9, 9),
    ),
    "folded-batch": net(
        layer("InnerProduct", "inner_product_param { num_output: 12 }")
        + _then("Reshape", "out", "rows", "reshape_param { shape { dim: -1 dim: 3 } }")
        + _then("InnerProduct", "rows", "small", "inner_product_param { num_output: 2 }")
        + _then("Reshape", "small", "end", "reshape_param { shape { dim: -1 dim: 8 } }"),
        data=(4, 3, 4, 4),
    ),
}
"""Small nets in the shapes of known ones, several layers each."""

V1 = """
name: "old"
input: "data" input_dim: 1 input_dim: 6 input_dim: 7 input_dim: 9
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "n" type: LRN bottom: "c" top: "n" lrn_param { local_size: 3 } }
layers { name: "p" type: POOLING bottom: "n" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layers { name: "f" type: INNER_PRODUCT bottom: "p" top: "f" inner_product_param { num_output: 5 } }
layers { name: "d" type: DROPOUT bottom: "f" top: "f" dropout_param { dropout_ratio: 0.5 } }
layers { name: "s" type: SOFTMAX bottom: "f" top: "prob" }
"""
"""A net of ``layers {}`` with ``input:`` and ``input_dim:``."""
