"""Writes one small MXNet model: ``python mxnet_models.py KIND PREFIX``, run with MXNet's own Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mxnet as mx
import numpy as np

S = mx.sym
IMAGE = (2, 3, 16, 16)
x = S.Variable("data")


def conv_bn() -> object:
    h = S.Convolution(x, kernel=(3, 3), pad=(1, 1), stride=(2, 2), num_filter=6, no_bias=True, name="c1")
    h = S.Activation(S.BatchNorm(h, fix_gamma=True, name="bn1"), act_type="relu")
    h = S.Convolution(h, kernel=(3, 3), dilate=(2, 2), num_group=3, num_filter=6, name="c2")
    h = S.BatchNorm(h, fix_gamma=False, eps=1e-2, name="bn2")
    h = S.Pooling(h, global_pool=True, pool_type="avg", kernel=(1, 1))
    return S.SoftmaxOutput(S.FullyConnected(h, num_hidden=5, name="fc"), name="softmax")


def pooling() -> object:
    full = S.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full")
    valid = S.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg")
    without = S.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg", count_include_pad=False)
    return S.Group([full, valid, without])


def activations() -> object:
    kinds = ("relu", "sigmoid", "tanh", "softrelu", "softsign")
    leaky = [S.LeakyReLU(x, act_type=kind, slope=0.3) for kind in ("leaky", "elu", "selu", "gelu")]
    return S.Group([S.Activation(x, act_type=kind) for kind in kinds] + leaky)


def prelu() -> object:
    h = S.LeakyReLU(S.Convolution(x, kernel=(3, 3), num_filter=4, name="c"), act_type="prelu", name="image")
    return S.LeakyReLU(S.FullyConnected(h, num_hidden=6, name="fc"), act_type="prelu", name="rows")


def deconvolution() -> object:
    h = S.Deconvolution(x, kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=4, name="up")
    return S.Deconvolution(h, kernel=(3, 3), num_filter=2, no_bias=False, name="biased")


def norms() -> object:
    made = [S.LRN(x, nsize=5, alpha=0.01), S.InstanceNorm(x, name="instance"), S.L2Normalization(x, mode="channel")]
    return S.Group([*made, S.LayerNorm(x, axis=-1, name="layer")])


def arithmetic() -> object:
    y = S.Variable("other")
    sums = [x + y, x * y - 2.0, S.broadcast_div(x, S.mean(y, axis=1, keepdims=True) + 9.0), S.maximum(x, y)]
    return S.Group([*sums, S.dot(x, y, transpose_b=True), S.clip(x, -0.5, 0.5), 1.0 / (2.0 + S.square(y))])


def reductions() -> object:
    found = [S.mean(x, axis=(2, 3)), S.sum(x, axis=1, keepdims=True), S.max(x, axis=2), S.argmax(x, axis=1)]
    return S.Group([*found, S.softmax(x, axis=1), S.log_softmax(x, axis=1)])


def shapes() -> object:
    left, right, _ = S.SliceChannel(x, num_outputs=3, axis=1)
    made = [S.Concat(left, right, dim=1), S.Flatten(x), S.Reshape(x, shape=(0, -1, 8)), S.transpose(x, (0, 2, 3, 1))]
    made += [S.slice_axis(x, axis=2, begin=1, end=5), S.UpSampling(x, scale=2, sample_type="nearest")]
    return S.Group([*made, S.Pad(x, mode="edge", pad_width=(0, 0, 0, 0, 1, 1, 2, 2)), S.SwapAxis(x, dim1=1, dim2=2)])


def embedding() -> object:
    return S.FullyConnected(S.Embedding(x, input_dim=11, output_dim=4, name="e"), num_hidden=3, name="f", flatten=False)


def lstm() -> object:
    start = [S.zeros_like(S.expand_dims(S.slice_axis(S.mean(x, axis=0), axis=1, begin=0, end=1), 0)) for _ in "hc"]
    start = [S.tile(one, (1, 1, 4)) for one in start]
    return S.RNN(
        x, S.Variable("r_parameters"), *start, mode="lstm", state_size=4, num_layers=1, state_outputs=True, name="r"
    )


def labels() -> object:
    other = S.LinearRegressionOutput(S.FullyConnected(x, num_hidden=2, name="a"), name="linear")
    soft = S.SoftmaxOutput(S.Convolution(x, kernel=(1, 1), num_filter=2, name="b"), multi_output=True, name="each")
    return S.Group([other, S.LogisticRegressionOutput(S.sin(x), name="logistic"), soft])


def ambiguous() -> object:
    return S.SoftmaxOutput(x, name="whole")


def onet(kinds: tuple = ((32, 3, 3, 2), (64, 3, 3, 2), (64, 3, 2, 2), (128, 2, 0, 0))) -> object:
    """The O-Net of MTCNN, with the names of facenet-pytorch's weights."""
    h = x
    for number, (filters, kernel, window, stride) in enumerate(kinds, start=1):
        h = S.Convolution(h, kernel=(kernel, kernel), num_filter=filters, name=f"conv{number}")
        h = S.LeakyReLU(h, act_type="prelu", name=f"prelu{number}")
        if window:
            h = S.Pooling(h, kernel=(window,) * 2, stride=(stride,) * 2, pool_type="max", pooling_convention="full")
    h = S.FullyConnected(S.transpose(h, (0, 3, 2, 1)), num_hidden=256, name="dense5")
    h = S.LeakyReLU(h, act_type="prelu", name="prelu5")
    faces = S.SoftmaxOutput(S.FullyConnected(h, num_hidden=2, name="dense6_1"), name="faces")
    boxes, points = (S.FullyConnected(h, num_hidden=n, name=f"dense6_{i}") for i, n in ((2, 4), (3, 10)))
    return S.Group([boxes, points, faces])


def unknown() -> object:
    return S.Correlation(x, x * 2.0, kernel_size=1, max_displacement=1, name="corr")


SHAPES = {"arithmetic": {"data": (4, 6), "other": (4, 6)}, "embedding": {"data": (2, 7)}, "lstm": {"data": (5, 2, 3)}}


def save_onet(prefix: str, weights: str) -> None:
    """``weights``: an .npz with the tensors of facenet-pytorch's onet.pt."""
    values = {}
    for name, array in np.load(weights).items():
        layer, kind = name.rsplit(".", 1)
        values[f"{layer}_{'gamma' if 'prelu' in layer else kind}"] = mx.nd.array(array)
    mx.model.save_checkpoint(prefix, 0, onet(), values, {})


def save(kind: str, prefix: str) -> None:
    old = kind == "old"
    symbol = conv_bn() if old else globals()[kind]()
    found, _, states = symbol.infer_shape(**SHAPES.get(kind, {"data": IMAGE}))
    rng = np.random.default_rng(3)
    arguments = dict(_values(rng, symbol.list_arguments(), found))
    auxiliary = dict(_values(rng, symbol.list_auxiliary_states(), states))
    mx.model.save_checkpoint(prefix, 3, symbol, arguments, auxiliary)
    if old:  # as MXNet 0.8 wrote it: `param`, and nothing that has the operator's own value
        path = Path(prefix + "-symbol.json")
        graph = json.loads(path.read_text())
        for node in graph["nodes"]:
            attrs = node.pop("attrs", {})
            dropped = ("fix_gamma",) if node["name"] == "bn1" else ()
            node["param"] = {key: value for key, value in attrs.items() if key not in dropped}
            node["backward_source_id"] = -1
        graph.pop("attrs", None)
        path.write_text(json.dumps(graph))


def _values(rng: object, names: object, shapes: object) -> object:
    for name, shape in zip(names, shapes, strict=True):
        if name not in ("data", "other") and not name.endswith("_label"):
            values = rng.uniform(0.2, 0.9, shape)
            yield name, mx.nd.array(values if "var" in name else values * rng.choice((-1, 1), shape))


if __name__ == "__main__":
    save_onet(*sys.argv[2:]) if sys.argv[1] == "onet" else save(*sys.argv[1:])
