"""Classifiers whose preprocessing the spec tells: served answers equal the source's, and a swapped order is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from repo_builder import model_config, pipeline, proof, toolchain
from repo_builder.errors import ProofFailedError
from repo_builder.formats import framework_process, tensorflow_framework
from repo_builder.repository.layout import Layout
from tests import caffe_nets, spec_builds, tiny_vision

pytestmark = pytest.mark.server
pytest.importorskip("PIL")
SPEC = """
target: 24.10
models:
- name: tensorflow_like
  source: last.onnx
  image: {size: 32, resample: bicubic, mean: 127.5, std: 127.5}
  labels: labels.txt
  scores: softmax
  cpus: 1
- name: caffe_like
  source: one.onnx
  image: {shortest_edge: 40, crop: 32, channels: BGR, mean: [104, 117, 123], std: 58.8}
  samples: {images: [photo.png, wide.jpg]}
  cpus: 1
- name: planted
  source: one.onnx
  image: {shortest_edge: 40, crop: 32, channels: BGR, mean: [104, 117, 123], std: 58.8}
  labels: [a, b, c, d, e, f, g]
  step_configs: {preprocess: {parameters: {channel_order: rgb}}}
  samples: {images: [photo.png, wide.jpg]}
  cpus: 1
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    from PIL import Image

    home = tmp_path_factory.mktemp("described")
    tiny_vision.classifier_onnx(home / "last.onnx", layout="NHWC")
    tiny_vision.classifier_onnx(home / "one.onnx", batch=1)
    (home / "labels.txt").write_text("".join(f"{label}\n" for label in tiny_vision.LABELS), encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (60, 45, 3), dtype=np.uint8) // np.array([1, 2, 6], np.uint8)
    Image.fromarray(noise).save(home / "photo.png")
    Image.fromarray(noise.transpose(1, 0, 2).copy()).save(home / "wide.jpg")
    (home / "spec.yaml").write_text(SPEC, encoding="utf-8")
    return pipeline.build(home / "spec.yaml", home / "repository"), home


def test_served_answers_equal_the_model_on_pillows_pixels(built: tuple[pipeline.Result, Path]) -> None:
    result, home = built
    assert {"tensorflow_like", "caffe_like"} <= result.reports.keys() - result.failed.keys()
    report = result.reports["tensorflow_like"]
    assert report["passed"] is True
    assert report["task"]["why"] == "the spec has `image:`"
    assert report["reference"].startswith("the onnx model in ONNX Runtime on pixels of Pillow ")
    cases = proof.load(Layout.of(home / "repository").proof("tensorflow_like")).cases
    assert len(cases) == 64
    assert {label.decode() for label in cases[0].outputs["LABELS"][0]} == set(tiny_vision.LABELS)
    assert len({case.outputs["LABELS"][0, 0] for case in cases}) > 1, "answers vary"
    for case in cases[:8]:
        logits, order = case.outputs["LOGITS"][0], np.argsort(-case.outputs["LOGITS"][0])
        np.testing.assert_allclose(case.outputs["SCORES"][0].sum(), 1, atol=1e-5)
        assert [label.decode() for label in case.outputs["LABELS"][0]] == [tiny_vision.LABELS[i] for i in order]
        np.testing.assert_allclose(np.diff(np.log(case.outputs["SCORES"][0])), np.diff(logits[order]), atol=1e-3)


def test_a_model_of_one_image_at_a_time_is_served_without_batches(built: tuple[pipeline.Result, Path]) -> None:
    result, home = built
    assert result.reports["caffe_like"]["requests"].keys() == {"alone", "concurrent", "separately"}
    cases = proof.load(Layout.of(home / "repository").proof("caffe_like")).cases
    assert [case.inputs["IMAGE"].shape for case in cases] == [(1, 1), (1, 1)], "the spec's own images"
    assert cases[0].outputs["LABELS"][0, 0].startswith(b"LABEL_")
    np.testing.assert_array_equal(np.sort(cases[0].outputs["LOGITS"])[:, ::-1], cases[0].outputs["SCORES"])


def test_a_swapped_channel_order_is_refused(built: tuple[pipeline.Result, Path]) -> None:
    result, home = built
    assert list(result.failed) == ["planted"]
    assert isinstance(result.failed["planted"], ProofFailedError)
    assert "output LOGITS: max abs error" in str(result.failed["planted"])
    assert not (home / "repository" / "planted").exists()


FRAMEWORKS = """
target: 24.10
models:
- {name: caffe, source: ./caffe, image: {size: 40, crop: 32, channels: BGR, mean: [104, 117, 123], std: 58.8}, cpus: 1}
- {name: tensorflow, source: ./saved, image: {size: [32, 48], mean: 127.5, std: 127.5}, scores: softmax, cpus: 1}
"""
KERAS = """
import sys, keras
keras.utils.set_random_seed(5)
layers = [keras.Input((32, 48, 3)), keras.layers.Conv2D(8, 5, 3, activation="relu")]
net = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(6)])
net.set_weights([8 * weight for weight in net.get_weights()])
net.export(sys.argv[1])
"""


def caffe_classifier() -> str:
    steps = [
        ("Convolution", "convolution_param { num_output: 8 kernel_size: 5 stride: 3 }"),
        ("ReLU", ""),
        ("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        ("InnerProduct", "inner_product_param { num_output: 5 }"),
        ("Softmax", ""),
    ]
    tops = ["data", *(kind.lower() for kind, _ in steps)]
    layers = [
        caffe_nets.layer(kind, told, name=top, bottoms=(bottom,), tops=(top,))
        for (kind, told), bottom, top in zip(steps, tops, tops[1:], strict=False)
    ]
    return caffe_nets.net("".join(layers), data=(1, 3, 32, 32))


@pytest.mark.slow
def test_nets_of_caffe_and_tensorflow_take_encoded_images(tmp_path: Path) -> None:
    """The reference is the framework's own runtime; TensorFlow's pixels have their channels last."""
    framework = tensorflow_framework.FRAMEWORK
    python = toolchain.ensure(framework.name, framework.requirements)
    subprocess.run([python, "-c", KERAS, tmp_path / "saved"], check=True, capture_output=True)
    caffe_nets.save(caffe_classifier(), tmp_path / "caffe")
    try:
        result, repository = spec_builds.build(tmp_path, FRAMEWORKS)
    finally:
        framework_process.close_all()
    assert "in OpenCV's dnn module on pixels of Pillow" in result.reports["caffe"]["reference"]
    assert "the savedmodel model in TensorFlow" in result.reports["tensorflow"]["reference"]
    for name, labels in (("caffe", 5), ("tensorflow", 6)):
        cases = proof.load(Layout.of(repository).proof(name)).cases
        assert {case.outputs["LABELS"].shape for case in cases} == {(1, labels)}
        assert np.std([case.outputs["SCORES"][0, 0] for case in cases]) > 0.005, "answers vary"
    config = (repository / "tensorflow_preprocess" / "config.pbtxt").read_text(encoding="utf-8")
    assert list(model_config.parse(config).output[0].dims) == [32, 48, 3]
