"""Caffe's files: pairs found, inputs declared, weights fitted, and what is hostile, unknown or for training refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import caffe_nets
import caffe_numpy
import numpy as np
import pytest
from caffe_nets import layer, net

from repo_builder import formats
from repo_builder.convert import caffe_to_onnx
from repo_builder.errors import (
    ConversionError,
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
)
from repo_builder.formats import caffe, caffe_net, caffe_reference, caffe_schema, caffe_weights
from repo_builder.formats import onnx as onnx_format
from repo_builder.tensors import TensorSpec

INNER = layer("InnerProduct", "inner_product_param { num_output: 4 }")


def _refused(kind: type[RepoBuilderError], what: Any, *, found: str, expected: str = "", mend: str = "") -> None:
    with pytest.raises(kind) as caught:
        what()
    assert found in caught.value.found
    assert expected in caught.value.expected
    assert mend in caught.value.mend


def _text(tmp_path: Path, text: str) -> Path:
    """A prototxt alone, with a caffemodel that has no weights beside it."""
    (tmp_path / "net.prototxt").write_text(text, encoding="utf-8")
    message = caffe_schema.weights()
    message.layer.add(name=b"data")
    (tmp_path / "net.caffemodel").write_bytes(message.SerializeToString())
    return tmp_path / "net.prototxt"


@pytest.mark.parametrize("named", ["net.prototxt", "net.caffemodel", ""])
def test_a_pair_is_found_from_either_file_and_from_the_folder(named: str, tmp_path: Path) -> None:
    caffe_nets.save(net(INNER), tmp_path)
    name, path = formats.detect(str(tmp_path / named))
    artifact = formats.get(name).describe(path)
    assert (name, artifact.path.name, artifact.files) == ("caffe", "net.prototxt", ("net.prototxt", "net.caffemodel"))
    assert artifact.inputs == (TensorSpec("data", "FP32", ("batch", 6, 7, 9)),)
    assert artifact.outputs == (TensorSpec("out", "FP32", ("batch", 4)),)
    assert artifact.facts["parameters"] == 6 * 7 * 9 * 4 + 4


def test_of_a_folder_of_training_the_deploy_net_counts(tmp_path: Path) -> None:
    caffe_nets.save(net(INNER), tmp_path, name="deploy")
    (tmp_path / "deploy.caffemodel").rename(tmp_path / "snapshot_iter_100.caffemodel")
    (tmp_path / "solver.prototxt").write_text('net: "train_val.prototxt"\nbase_lr: 0.01\n', encoding="utf-8")
    training = layer("Data", bottoms=(), tops=("data", "label")) + INNER
    (tmp_path / "train_val.prototxt").write_text(training, encoding="utf-8")
    for named in (tmp_path, tmp_path / "snapshot_iter_100.caffemodel", tmp_path / "deploy.prototxt"):
        assert caffe.pair(named) == (tmp_path / "deploy.prototxt", tmp_path / "snapshot_iter_100.caffemodel")


def test_of_several_pairs_equal_names_or_equal_layers_tell(tmp_path: Path) -> None:
    caffe_nets.save(net(INNER), tmp_path, name="one")
    caffe_nets.save(net(INNER.replace("tried", "other")), tmp_path, name="two")
    assert caffe.pair(tmp_path / "two.prototxt")[1].name == "two.caffemodel"
    assert caffe.pair(tmp_path / "one.caffemodel")[0].name == "one.prototxt"
    _refused(
        SourceMissingError,
        lambda: caffe.pair(tmp_path),
        found="may mean several pairs: one.prototxt with one.caffemodel; two.prototxt with two.caffemodel",
        mend="net.prototxt, net.caffemodel",
    )
    (tmp_path / "two.caffemodel").rename(tmp_path / "weights.caffemodel")
    assert caffe.pair(tmp_path / "two.prototxt")[1].name == "weights.caffemodel"


def test_a_file_without_its_partner_says_what_lies_there(tmp_path: Path) -> None:
    caffe_nets.save(net(INNER), tmp_path)
    (tmp_path / "net.caffemodel").unlink()
    _refused(
        SourceMissingError,
        lambda: caffe.describe(tmp_path / "net.prototxt"),
        found="net.prototxt has no partner",
        expected="which has net.prototxt",
        mend="put the two beside each other",
    )


@pytest.mark.parametrize(
    "declared",
    [
        'input: "data" input_dim: 1 input_dim: 6 input_dim: 7 input_dim: 9',
        'input: "data" input_shape { dim: 1 dim: 6 dim: 7 dim: 9 }',
        'layer { name: "x" type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 dim: 7 dim: 9 } } }',
    ],
)
def test_inputs_are_declared_in_three_ways(declared: str, tmp_path: Path) -> None:
    path = caffe_nets.save(f"{declared}\n{INNER}", tmp_path)
    assert str(caffe.describe(path).inputs[0]) == "data FP32[batch, 6, 7, 9]"


@pytest.mark.parametrize(
    ("text", "kind", "found", "mend"),
    [
        (
            layer("Data", name="reader", bottoms=(), tops=("data",)) + INNER,
            ConversionError,
            "layer 'reader' of type 'Data' (number 1 of net.prototxt) reads training data",
            'replace the data layers by layer { name: "data" type: "Input" top: "data" input_param { shape {',
        ),
        (INNER, SignatureError, "net.prototxt declares no input", 'type: "Input"'),
        ('input: "data" input_dim: 3\n' + INNER, SignatureError, "1 inputs with 1 input_dim", "input_shape"),
        (
            'input: "data" input_dim: 1 input_dim: 6 input_dim: 7 input_dim: 9\n' + net(INNER),
            SignatureError,
            "twice",
            "",
        ),
        (net(INNER, data=(1, 0, 3)), SignatureError, "input 'data'", "trained"),
        (net(INNER, data=(1 << 33, 3)), SignatureError, "[8589934592, 3]", "trained"),
        (net(INNER, data=(1, 1 << 20, 1 << 20)), SignatureError, "[1, 1048576, 1048576]", "trained"),
        (net(layer("Interp", "interp_param { height: 2147483647 width: 2147483647 }")), ConversionError, "blob", ""),
        (
            net(layer("DetectionOutput", name="boxes")),
            ConversionError,
            "layer 'boxes' of type 'DetectionOutput' (number 2 of net.prototxt) decodes boxes",
            "serve the boxes, scores and priors",
        ),
        (net(layer("Magic")), ConversionError, "of type 'Magic' (number 2 of net.prototxt) is not converted", ""),
        (net(layer("SoftmaxWithLoss")), ConversionError, "belongs to training", "put a Softmax there"),
        (net(layer("TanH", bottoms=("dta",))), ConversionError, "takes the blob 'dta', which no layer", "bottom"),
        (net(layer("TanH") + layer("ReLU", name="b")), ConversionError, "which another layer makes too", "name"),
        (
            net(layer("InnerProduct", "inner_product_param { transpose: true }")),
            ConversionError,
            "has transpose",
            "blob",
        ),
        (net(layer("Log", "log_param { base: 2 }")), ConversionError, "which OpenCV, the reference, ignores", "Power"),
        (net(layer("Interp", "interp_param { shrink_factor: 2 }")), ConversionError, "shrink_factor", ""),
        (
            net(layer("Deconvolution", "convolution_param { num_output: 6 kernel_size: 2 dilation: 2 }")),
            ConversionError,
            "has dilation, which OpenCV, the reference, ignores",
            "zeros",
        ),
        (
            net(layer("PReLU"), data=(6,)),
            ConversionError,
            "layer 'tried' of type 'PReLU' (number 2 of net.prototxt) takes a blob of shape [6]",
            "",
        ),
        (
            net(layer("Slice", bottoms=("data", "other"), tops=("a", "b")), data=(1, 6, 7, 9), other=(1, 6, 7, 9)),
            ConversionError,
            "type 'Slice' (number 3 of net.prototxt) has 2 bottoms",
            "",
        ),
        (net(layer("Scale", "scale_param { num_axes: -2 }")), ConversionError, "cannot lay -2 axes over", ""),
        (
            net(layer("Reshape", "reshape_param { shape { dim: 0 } axis: 2 num_axes: -2 }")),
            ConversionError,
            "cannot make [0] of [1, 6, 7, 9]",
            "",
        ),
        (
            net(layer("PriorBox", "prior_box_param { min_size: 3 max_size: -5 }", bottoms=("data", "data"))),
            ConversionError,
            "has the max_size [-5.0] over the min_size [3.0]",
            "",
        ),
        ("layer { name: 3 }", SourceCorruptError, "does not parse as a Caffe net (1:15", "line"),
        ("base_lr: 0.1", SourceCorruptError, "holds no layer", "solver"),
        ('layers { type: "Convolution" }', SourceCorruptError, "does not parse as a Caffe net", "line"),
        ("layer { " + "a { " * 100_000, SourceCorruptError, "does not parse as a Caffe net", ""),
        (net("layers { type: RELU }"), SourceCorruptError, "both `layer` and `layers`", "upgrade_net_proto_text"),
    ],
)
def test_a_net_that_cannot_be_served_is_refused(
    text: str, kind: type[RepoBuilderError], found: str, mend: str, tmp_path: Path
) -> None:
    path = _text(tmp_path, text)
    _refused(kind, lambda: caffe.describe(path), found=found, mend=mend)


@pytest.mark.parametrize(
    "parameters",
    [
        "num_output: 4294967295 kernel_size: 3",
        "num_output: 4 kernel_size: 4294967295",
        "num_output: 4 kernel_size: 3 pad: 4294967295",
        "num_output: 4 kernel_size: 3 stride: 0",
        "num_output: 4 kernel_size: 3 group: 4",
        "num_output: 4",
        "num_output: 4 kernel_size: 1 kernel_size: 2 kernel_size: 3",
        "num_output: 4 kernel_h: 2",
    ],
)
def test_a_convolution_of_impossible_sizes_is_refused(parameters: str, tmp_path: Path) -> None:
    path = _text(tmp_path, net(layer("Convolution", f"convolution_param {{ {parameters} }}")))
    with pytest.raises(ConversionError, match=r"layer 'tried' of type 'Convolution' \(number 2 of net.prototxt\)"):
        caffe.describe(path)


def test_a_truncated_caffemodel_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = caffe_nets.save(net(layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }")), tmp_path)
    weights = tmp_path / "net.caffemodel"
    whole = weights.read_bytes()
    for size in range(len(whole)):
        weights.write_bytes(whole[:size])
        with pytest.raises(SourceCorruptError):
            caffe.describe(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"layer { name: 'x' }", "does not parse as a caffemodel"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "does not parse as a caffemodel"),
        (b"\x0a\x03net", "parses, but holds no layer"),
    ],
)
def test_what_is_no_caffemodel_is_refused(content: bytes, found: str, tmp_path: Path) -> None:
    path = caffe_nets.save(net(INNER), tmp_path)
    (tmp_path / "net.caffemodel").write_bytes(content)
    _refused(SourceCorruptError, lambda: caffe.describe(path), found=found)


def _misfit(tmp_path: Path, change: Any) -> Path:
    path = caffe_nets.save(net(INNER, data=(1, 3)), tmp_path)
    message = caffe_schema.weights()
    weights = tmp_path / "net.caffemodel"
    message.ParseFromString(weights.read_bytes())
    change(next(one for one in message.layer if one.blobs))
    weights.write_bytes(message.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        (lambda one: one.blobs.pop(), "it has 1 blobs for layer 'tried' of type 'InnerProduct'", "2: [4, 3], [4]"),
        (lambda one: one.ClearField("blobs"), "it has 0 blobs", "2: [4, 3], [4]"),
        (lambda one: one.blobs[0].shape.dim.reverse(), "blob 0 of shape [3, 4]", "[4, 3]"),
        (lambda one: one.blobs[0].shape.dim.append(1 << 62), "blob 0 of shape [4, 3, 4611686018427387904]", "[4, 3]"),
        (lambda one: one.blobs[0].shape.dim.append(-1), "blob 0 of shape [4, 3, -1]", "[4, 3]"),
        (lambda one: one.blobs[1].ClearField("data"), "blob 1 of shape [4] with 0 values", "4 values"),
        (lambda one: one.blobs[1].data.append(b"1234"), "with 5 values", "4 values"),
        (
            lambda one: (
                one.blobs[1].ClearField("data"),
                setattr(one.blobs[1], "raw_data", b"12345678"),
                setattr(one.blobs[1], "raw_data_type", 9),
            ),
            "with an unknown type of values",
            "4 values",
        ),
        (lambda one: setattr(one, "name", b"elsewhere"), "it has 0 blobs for layer 'tried'", "2:"),
    ],
)
def test_a_caffemodel_that_does_not_fit_its_prototxt_is_refused(
    change: Any, found: str, expected: str, tmp_path: Path
) -> None:
    path = _misfit(tmp_path, change)
    _refused(
        SourceCorruptError,
        lambda: caffe.describe(path),
        found=found,
        expected=expected,
        mend="give the caffemodel that was trained with this prototxt",
    )


def test_values_are_read_packed_unpacked_double_and_half(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)

    def unpacked(one: Any) -> None:
        blob = one.blobs[0]
        blob.ClearField("data")
        blob.MergeFromString(b"".join(b"\x2d" + value.tobytes() for value in values.reshape(-1)))

    def double(one: Any) -> None:
        one.blobs[0].ClearField("data")
        one.blobs[0].double_data.append(values.astype("<f8").tobytes())

    def half(one: Any) -> None:
        one.blobs[0].ClearField("data")
        one.blobs[0].raw_data_type, one.blobs[0].raw_data = 2, values.astype("<f2").tobytes()

    def split(one: Any) -> None:
        whole = values.tobytes()
        one.blobs[0].data[:] = [whole[:20], whole[20:]]

    for number, change in enumerate((unpacked, double, half, split)):
        path = _misfit(tmp_path / str(number), change)
        read = caffe_net.read(path)
        found = caffe_weights.fitted(read, [[(1, 3)]], path.with_suffix(".caffemodel"))
        assert np.array_equal(found[0][0], values)


def test_names_with_slashes_quotes_and_newlines_are_served_under_legal_ones(tmp_path: Path) -> None:
    text = net(
        layer("TanH", name=r"a/\"b\"\n..", tops=(r"fc8/\"prob\"\n",)) + layer("ReLU", name="r", tops=("fc8.prob",))
    )
    text = text.replace('"data"', r'"../in put"')
    path = caffe_nets.save(text, tmp_path)
    source = caffe.describe(path)
    assert [spec.name for spec in source.inputs] == ["in_put"]
    assert [spec.name for spec in source.outputs] == ["fc8_prob", "fc8.prob"]
    caffe_to_onnx.write(source, tmp_path / "model.onnx")
    onnx_format.check(tmp_path / "model.onnx")
    x = np.linspace(-1, 1, 378, dtype=np.float32).reshape(caffe_nets.IMAGE)
    answers = onnx_format.run(onnx_format.describe(tmp_path / "model.onnx"), {"in_put": x})
    wanted = caffe_numpy.run(path, {"../in put": x})
    assert np.allclose(answers["fc8_prob"], wanted[0], atol=1e-6)
    assert np.array_equal(answers["fc8.prob"], wanted[1])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.onnx", "net.caffemodel", "net.prototxt"]


def test_the_batch_is_fixed_where_a_layer_says_so_or_the_user_does(tmp_path: Path) -> None:
    fixed = net(layer("Reshape", "reshape_param { shape { dim: 1 dim: 6 dim: -1 } }", name="r"))
    source = caffe.describe(
        caffe_nets.save(fixed + INNER.replace('"out"', '"end"').replace('"data"', '"out"'), tmp_path)
    )
    assert [str(spec) for spec in (*source.inputs, *source.outputs)] == ["data FP32[1, 6, 7, 9]", "end FP32[1, 4]"]
    path = caffe_nets.save(net(INNER), tmp_path)
    source = caffe.describe(path, [TensorSpec("data", "FP32", (5, 6, 7, 9))])
    assert [str(spec) for spec in (*source.inputs, *source.outputs)] == ["data FP32[5, 6, 7, 9]", "out FP32[5, 4]"]
    with pytest.raises(SignatureError, match=r"`inputs:` says data FP32\[5, 3, 7, 9\]"):
        caffe.describe(path, [TensorSpec("data", "FP32", (5, 3, 7, 9))])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("convolution", ""),
        ("relu-in-place", ""),
        ("lrn-default", "alpha: 1"),
        ("lrn", "power_param"),
        ("slice-dim", "axis: 3"),
        ("pooling-floor", "ceil_mode: false"),
        ("bias", "bias_term: true"),
        ("prior-box", "clip: false"),
        ("train-left-out", 'type: "TanH"'),
    ],
)
def test_opencv_is_told_in_other_words_only_where_it_must_be(name: str, said: str, tmp_path: Path) -> None:
    told = caffe_reference.text(caffe_net.read(caffe_nets.save(caffe_nets.NETS[name], tmp_path)))
    assert (said in told) if said else told == ""
    assert "include" not in told
