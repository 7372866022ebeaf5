"""The image model's pixels are those of transformers' own image processors; what it cannot take is refused alone."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder.errors import SourceCorruptError, UnknownTaskError
from repo_builder.tasks import image, image_settings, sample_images
from repo_builder.tasks.image_settings import ImageSettings
from repo_builder.tensors import TensorSpec
from tests import backend_utils_stand_in, tiny_vision

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.torch
SMALL = ImageSettings(size=(4, 6), rescale_factor=1 / 255)


def served(settings: ImageSettings, folder: Path, **parameters: str) -> Any:
    """The model as the server would start it, with this environment's Pillow."""
    height, width = settings.shape or (-1, -1)
    pixels = TensorSpec("pixel_values", "FP32", ("batch", 3, height, width))
    planned = image.preprocess("tiny", pixels, settings, max_batch_size=8)
    alone = dataclasses.replace(planned, version_files={"model.py": planned.version_files["model.py"]})
    home, config = backend_utils_stand_in.write(alone, folder)
    config["parameters"] |= {key: {"string_value": value} for key, value in parameters.items()}
    return backend_utils_stand_in.load(home, config)


def asked(model: Any, *images: bytes) -> Any:
    return model.execute([{"IMAGE": np.array([[one] for one in images], dtype=object)}])[0]


def encoded(picture: Any, encoding: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, encoding, **options)
    return buffer.getvalue()


CASES = [
    *((name, {}) for name in tiny_vision.ARCHITECTURES),
    ("vit", {"resample": 0}),
    ("vit", {"resample": 1, "do_rescale": False}),
    ("vit", {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 40, "width": 51}}),
    ("vit", {"do_normalize": False, "size": {"height": 20, "width": 31}}),
    ("vit", {"do_pad": True, "pad_size": {"height": 40, "width": 50}}),
    ("vit", {"size": {"shortest_edge": 24, "longest_edge": 40}, "do_center_crop": True,
             "crop_size": {"height": 32, "width": 32}}),
    ("dinov2", {"crop_size": {"height": 40, "width": 33}}),
    ("convnext", {"size": {"shortest_edge": 384}}),
    ("efficientnet", {"rescale_offset": False, "include_top": False}),
    ("efficientnet", {"do_normalize": False}),
    ("efficientnet", {"do_rescale": False}),
    ("mobilevit", {"do_flip_channel_order": False}),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "options"), CASES, ids=lambda case: str(case)[:60])
def test_pixels_equal_those_of_transformers(architecture: str, options: dict[str, Any], tmp_path: Path) -> None:
    from transformers.image_utils import load_image

    processor = tiny_vision.processor(architecture, **options)
    model = served(image_settings.read(processor), tmp_path)
    worst, spread = 0.0, []
    for raw in sample_images.built_in():
        expected = processor(images=load_image(Image.open(io.BytesIO(raw))), return_tensors="np")["pixel_values"]
        answer = asked(model, raw)
        assert answer.error is None
        found = answer.arrays["pixel_values"]
        assert found.shape == expected.shape
        assert found.dtype == np.float32
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
        spread.append(float(found.mean()))
    assert worst <= 1e-5
    assert np.std(spread) > 0.01, "the images differ"


def test_samples_are_the_same_every_time_and_of_many_kinds() -> None:
    images = sample_images.built_in()
    assert images == sample_images.built_in()
    assert len(set(images)) == 64
    opened = [Image.open(io.BytesIO(raw)) for raw in images]
    modes = {(one.format, one.mode) for one in opened}
    assert {("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "1"), ("WEBP", "RGB")} <= modes
    assert {one.getexif().get(0x0112) for one in opened if one.format == "JPEG" and one.mode == "RGB"} == {*range(1, 9)}
    assert any(getattr(one, "n_frames", 1) > 1 for one in opened)
    assert len({one.size for one in opened}) >= 9


def test_exif_orientation_turns_an_image(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 3
    model = served(SMALL, tmp_path)
    plain, turned = (asked(model, encoded(picture, exif=e)).arrays["pixel_values"] for e in (Image.Exif(), exif))
    np.testing.assert_array_equal(turned, plain[:, :, ::-1, ::-1])


def test_caffe_style_mean_scale_and_channel_order(tmp_path: Path) -> None:
    """Caffe: (BGR - mean) * scale, of values from 0 to 255."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    settings = ImageSettings(reverse_channels=True, mean=(104.0, 117.0, 123.0), std=(1 / 0.017,) * 3, crop=(4, 6))
    found = asked(served(settings, tmp_path), encoded(Image.fromarray(pixels))).arrays["pixel_values"][0]
    expected = (pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([104, 117, 123]).reshape(3, 1, 1)) * 0.017
    np.testing.assert_allclose(found, expected, atol=1e-5)


def wide(width: int, height: int) -> bytes:
    return encoded(Image.new("1", (width, height)))


JPEG = sample_images.built_in()[6]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "image 1 is no image that is taken here (0 bytes), expected one of: JPEG, PNG, WEBP"),
        (b"GIF89a", "image 1 "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image 1 is no image that is taken here (47 bytes)"),
        (JPEG[:-30], "image 1 cannot be decoded: image file is truncated"),
        (wide(101, 100), "image 1 has 101 x 100 pixels, more than 10000 in all (max_pixels)"),
    ],
)
def test_a_bad_image_is_refused_and_its_neighbours_are_served(raw: bytes, message: str, tmp_path: Path) -> None:
    model = served(SMALL, tmp_path, max_pixels="10000")
    good = wide(100, 100)
    requests = [{"IMAGE": np.array([[one] for one in several], dtype=object)} for several in ((good,), (good, raw))]
    first, refused, last = model.execute([*requests, requests[0]])
    assert first.arrays["pixel_values"].shape == last.arrays["pixel_values"].shape == (1, 3, 4, 6)
    assert refused.error.code == 3
    assert f"input 'IMAGE': {message}" in str(refused.error)


def test_what_resizing_would_blow_up_is_refused(tmp_path: Path) -> None:
    settings = ImageSettings(shortest_edge=256, crop=(224, 224))
    answer = asked(served(settings, tmp_path), wide(40000, 1))
    assert "image 0 would be resized to 10240000 x 256 pixels, more than 89478485 in all" in str(answer.error)


DETECTORS = [
    ("Detr", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
    ("Yolos", {"size": {"shortest_edge": 100, "longest_edge": 150}}),
    ("RTDetr", {"size": {"height": 64, "width": 96}}),
    ("ConditionalDetr", {"size": {"height": 50, "width": 70}}),
]


@pytest.mark.parametrize(("kind", "options"), DETECTORS, ids=lambda case: str(case)[:60])
def test_pixels_of_detectors_equal_those_of_transformers(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    from transformers.image_utils import load_image

    processor = tiny_vision._processor(kind, options)
    model = served(image_settings.read(processor), tmp_path)
    for raw in sample_images.built_in()[:8]:
        image = load_image(Image.open(io.BytesIO(raw)))
        answer = asked(model, raw)
        try:
            expected = processor(images=image, return_tensors="np")["pixel_values"]
        except ValueError:
            assert "expected at least one on each edge" in str(answer.error)
            continue
        assert answer.arrays["pixel_values"].shape == expected.shape
        np.testing.assert_allclose(answer.arrays["pixel_values"], expected, atol=1e-5)


def test_images_of_several_sizes_in_one_request_are_refused(tmp_path: Path) -> None:
    model = served(ImageSettings(shortest_edge=10, longest_edge=20), tmp_path)
    assert asked(model, wide(5, 5), wide(6, 6)).arrays["pixel_values"].shape == (2, 3, 10, 10)
    refused = asked(model, wide(5, 5), wide(6, 5)).error
    assert "images of one request become 3 x 10 x 10 and 3 x 10 x 12; send each in its own" in str(refused)


def test_images_smaller_than_the_engine_wants_are_refused(tmp_path: Path) -> None:
    model = served(dataclasses.replace(SMALL, size=None, pad=(8, 8)), tmp_path)
    assert asked(model, wide(5, 5)).arrays["pixel_values"].shape == (1, 3, 8, 8)
    assert "image 0 has 9 x 5 pixels, more than 8 x 8" in str(asked(model, wide(9, 5)).error)


def test_what_does_not_fit_is_refused_before_floats_are_made_of_it(tmp_path: Path) -> None:
    import tracemalloc

    model = served(dataclasses.replace(SMALL, size=None, pad=(8, 8)), tmp_path)
    raw = wide(2000, 2000)
    tracemalloc.start()
    refused = asked(model, raw).error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "image 0 has 2000 x 2000 pixels, more than 8 x 8" in str(refused)
    assert peak < 2000 * 2000 * 3 * 4, "a copy of the pixels in float32"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channel_order": "grb"}, "parameter 'channel_order' is 'grb', expected one of: rgb, bgr"),
        ({"crop_height": "3"}, "parameters 'crop_height' and 'crop_width' go together"),
        ({"resample": "2", "crop_width": "wide"}, "parameter 'crop_width' is 'wide', expected a number"),
        ({"image_mean": "1,2"}, "parameter 'image_mean' is '1,2', expected three numbers"),
        ({"image_std": "1,b,3"}, "parameter 'image_std' is '1,b,3', expected three numbers"),
        ({"max_pixels": "1e6"}, "parameter 'max_pixels' is '1e6', expected a number"),
        ({"resample": "9"}, "parameter 'resample' is '9', expected one of: 0, 1, 2, 3, 4, 5"),
        ({"shortest_edge": "9"}, "parameters 'height', 'width' and 'shortest_edge' exclude each other"),
        ({"layout": "chw"}, "parameter 'layout' is 'chw', expected one of: nchw, nhwc"),
        ({"formats": "JPEG,PIX"}, "parameter 'formats' names PIX, which this Pillow does not decode"),
    ],
)
def test_wrong_parameters_are_refused_at_the_start(parameters: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        served(SMALL, tmp_path, **parameters)


def test_an_unknown_image_processor_is_refused() -> None:
    import transformers

    with pytest.raises(UnknownTaskError, match="the image processor is a ImageGPTImageProcessorPil") as found:
        image_settings.read(transformers.ImageGPTImageProcessorPil(clusters=np.zeros((2, 3))))
    assert "prepare the images in the client" in str(found.value)


def test_a_size_of_one_edge_only_is_refused() -> None:
    processor = tiny_vision.processor("vit")
    processor.size = {"height": 3}
    with pytest.raises(SourceCorruptError, match=r"size in preprocessor_config\.json has height"):
        image_settings.read(processor)
