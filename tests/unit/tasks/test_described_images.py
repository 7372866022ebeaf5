"""What a spec's ``image:`` describes: pixels as others define them; what does not fit is refused at the start."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import spec, tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.pipeline import asked
from repo_builder.spec import ImageOptions, ModelSpec
from repo_builder.tasks import described_images, image, image_settings, sample_images
from repo_builder.tasks.oracles import image_pixels
from repo_builder.tensors import TensorSpec
from tests import backend_utils_stand_in

Image = pytest.importorskip("PIL.Image")
IMAGE = {"size": 32}
INPUT = TensorSpec("data", "FP32", ("batch", 3, 32, 32))
OUTPUT = TensorSpec("prob", "FP32", ("batch", 5, 1, 1))
NET = Artifact(Path("net.onnx"), "onnx", (INPUT,), (OUTPUT,), "batch")


def model(**fields: Any) -> ModelSpec:
    return spec.from_flags("net.onnx", **{"image": IMAGE, **fields}).models[0]


@pytest.mark.parametrize(
    "options",
    [
        {"size": [20, 31], "resample": "bicubic", "rescale_factor": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": 0.25},
        {"shortest_edge": 40, "crop": [32, 35], "channels": "BGR", "mean": [104, 117, 123]},
        {"size": 16, "rescale_factor": 1 / 127.5, "rescale_offset": -1, "layout": "NHWC"},
        {"crop": 50, "pad": [60, 70], "std": [1, 2, 3], "resample": "lanczos"},
    ],
    ids=str,
)
def test_the_oracle_and_the_served_step_make_the_same_pixels(options: dict[str, Any], tmp_path: Path) -> None:
    given = ImageOptions(**options)
    layout = given.layout or "NCHW"
    settings = image_settings.asked(given, layout)
    pixels = TensorSpec("pixels", "FP32", ("batch", *settings.axes()))
    planned = image.preprocess("tiny", pixels, settings, max_batch_size=8)
    alone = dataclasses.replace(planned, version_files={"model.py": planned.version_files["model.py"]})
    served = backend_utils_stand_in.load(*backend_utils_stand_in.write(alone, tmp_path))
    for raw in sample_images.built_in()[:24]:
        answer = served.execute([{"IMAGE": np.array([[raw]], dtype=object)}])[0]
        expected = image_pixels.pixels(raw, given, layout)
        np.testing.assert_allclose(answer.arrays["pixels"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_the_oracle_makes_the_pixels_of_transformers() -> None:
    import transformers

    given = ImageOptions(
        shortest_edge=40,
        crop=(32, 32),
        resample="bicubic",
        rescale_factor=1 / 255,
        mean=(0.4, 0.5, 0.6),
        std=(0.2,) * 3,
    )
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, image_mean=given.mean, image_std=given.std
    )
    for raw in sample_images.built_in():
        expected = processor(images=transformers.image_utils.load_image(Image.open(io.BytesIO(raw))))
        np.testing.assert_allclose(image_pixels.pixels(raw, given, "NCHW")[0], expected["pixel_values"][0], atol=1e-5)


def test_the_oracle_makes_the_pixels_of_caffe() -> None:
    """Caffe's transformer: BGR, of 0 to 255, less the mean, times the scale."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    given = ImageOptions(crop=(4, 6), channels="BGR", mean=(104, 117, 123), std=(1 / 0.017,) * 3)
    expected = (colours[:, :, ::-1].astype(float) - [104, 117, 123]) * 0.017
    np.testing.assert_allclose(image_pixels.pixels(buffer.getvalue(), given, "NHWC")[0], expected, atol=1e-5)


def test_image_in_the_spec_chooses_the_task() -> None:
    task, why = tasks.choose(model(labels=["a", "b", "c", "d", "e"]), NET)
    assert (task.NAME, why) == ("image-classification", "the spec has `image:`")


def net(data: tuple[Any, ...] = INPUT.shape, *outputs: TensorSpec) -> Artifact:
    return dataclasses.replace(NET, inputs=(TensorSpec("data", "FP32", data),), outputs=outputs or (OUTPUT,))


@pytest.mark.parametrize(
    ("fields", "source", "message"),
    [
        ({"image": None, "task": "image-classification"}, NET, "nothing tells what becomes of an image"),
        (
            {"image": {"size": 33}},
            NET,
            "makes images of 33 x 33 pixels .* the model takes data FP32\\[batch, 3, 32, 32",
        ),
        ({"image": {"size": 32, "layout": "NHWC"}}, NET, "one FP32 input .batch, 3, 32, 32. or .batch, 32, 32, 3."),
        ({}, net((4, 3, 32, 32)), "with a batch of 1 or of any size"),
        ({}, net(("batch", "a", "b", "c")), "does not tell where its channels are"),
        ({"labels": ["a", "b"]}, NET, "there are 2 labels, and the model gives prob FP32"),
        ({}, net(INPUT.shape, OUTPUT, OUTPUT), "there are no `labels:`, and the model gives prob FP32"),
        ({}, net(INPUT.shape, TensorSpec("ids", "INT64", ("batch", 5))), "there are no `labels:`, and the model gives"),
        ({"labels": "absent.txt"}, NET, "the file of labels absent.txt does not exist"),
        ({"samples": {"images": ["absent.png"]}}, NET, "the sample image absent.png does not exist"),
        ({"samples": {"images": [__file__]}}, NET, "samples.images: .* cannot be decoded \\(cannot identify"),
        (
            {
                "image": {"shortest_edge": 9, "crop": 32},
                "step_configs": {"preprocess": {"parameters": {"height": "9"}}},
            },
            NET,
            "height has no effect beside shortest_edge",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_the_start(fields: dict[str, Any], source: Artifact, message: str) -> None:
    with pytest.raises((SpecError, SourceMissingError), match=message):
        tasks.choose(model(**fields), source)


@pytest.mark.parametrize(
    ("fields", "source", "task", "message"),
    [
        ({"labels": ["a"]}, "huggingface", "image-classification", "image has no effect here: the folder tells it"),
        (
            {"image": None, "labels": ["a"]},
            "onnx",
            "tensors",
            "labels has no effect here: the task tensors takes no im",
        ),
        ({"samples": {"texts": ["a"]}}, "onnx", "image-classification", "takes no texts"),
        ({"samples": {"arrays": ["a.npz"]}}, "onnx", "image-classification", "image-classification takes images"),
        ({"image": None, "samples": {"images": ["a.png"]}}, "onnx", "tensors", "the task tensors takes no images"),
    ],
)
def test_options_without_effect_are_refused(fields: dict[str, Any], source: str, task: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        asked.check(model(**fields), dataclasses.replace(NET, format=source), task)


def test_of_several_outputs_the_one_with_a_value_for_each_label_is_served(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text('["a", "b", "c", "d", "e"]', encoding="utf-8")
    several = net(INPUT.shape, TensorSpec("hidden", "FP32", ("batch", 9)), OUTPUT)
    assert tasks.choose(model(labels=str(labels)), several)[0].NAME == "image-classification"


def test_an_empty_line_among_labels_is_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\n\nb\n", encoding="utf-8")
    with pytest.raises(SpecError, match="holds no list of labels"):
        tasks.choose(model(labels=str(labels)), NET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "images of one size make a batch: name size, crop or pad"),
        ({"size": 3, "shortest_edge": 3}, "size and shortest_edge exclude each other"),
        ({"size": 3, "std": [1, 0, 1]}, "std has a 0"),
        ({"size": 3, "means": 1}, "image.means: unknown key \\(did you mean 'mean'\\?\\)"),
    ],
)
def test_impossible_image_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        model(image=options)


def test_a_file_of_labels_loses_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert described_images._told(model(labels=str(tmp_path / "labels.txt"))) == ("cat", "dog")


def test_the_samples_fit_into_pad_after_they_are_resized() -> None:
    options = ImageOptions(shortest_edge=64, pad=100)
    chosen = described_images._fitting(model(), options)
    assert 0 < len(chosen) < 64
    for raw in chosen:
        image_pixels.pixels(raw, options, "NCHW")


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_scores_are_not_made_of_scores(scores: str) -> None:
    with pytest.raises(SpecError, match="the model gives scores itself"):
        described_images._not_scored_twice(model(scores=scores), [np.array([[0.25, 0.75]]), np.array([[1.0, 0.0]])])


@pytest.mark.parametrize(("scores", "values"), [("none", [0.25, 0.75]), ("softmax", [0.3, 0.9]), ("softmax", [1.0])])
def test_other_values_may_be_scored(scores: str, values: list[float]) -> None:
    described_images._not_scored_twice(model(scores=scores), [np.array([values])])


def test_a_pad_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pad \[8, 8\] is smaller than the \[16, 16\] pixels"):
        ImageOptions(size=16, pad=8)
