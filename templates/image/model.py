"""Encoded images in, pixels out: a Triton Python-backend model around the Pillow library.

The input (BYTES [batch, 1]) holds one encoded image a row, the output (FP32 [batch, 3, height, width], or
[batch, height, width, 3] where ``layout`` is ``nhwc``) its pixels; a second output, where the config has one (INT32
[batch, 2]), the height and width of the image before it is resized. An image is turned as its EXIF orientation says,
made RGB, and then goes through these steps, as `transformers` takes them with Pillow. Every setting is a string in the
config's ``parameters``; a step whose settings are absent is left out:

- ``height``, ``width``: the size to resize to; or ``shortest_edge``: the size of the shorter edge, the other keeps the
  ratio; with ``longest_edge``: its limit; with ``size_divisor``: both are cut down to a multiple of it.
- ``resample``: the filter, a number of Pillow's ``Resampling`` (``2``: bilinear).
- ``crop_height``, ``crop_width``: the middle that is kept; what is smaller is surrounded with zeros.
- ``pad_height``, ``pad_width``: zeros go below and to the right.
- ``rescale_factor``: all pixels times this; ``rescale_offset``: and plus this.
- ``channel_order``: ``rgb`` or ``bgr``.
- ``image_mean``, ``image_std``: a number for each channel in the order of ``channel_order``: minus mean, over std.
- ``layout``: ``nchw`` or ``nhwc``: the channels come first or last.

Limits: ``max_pixels``: of an image, and of what resizing makes of it; ``formats``: names of Pillow's decoders.

A request with an image that cannot be taken is refused; the others of its call are served. Of several frames the first
is taken.
"""

import io
import json
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FORMATS = "JPEG,PNG,WEBP,GIF,BMP,TIFF"
MAX_PIXELS = "89478485"
THREADS = 8
FIELDS = {
    "height": int,
    "width": int,
    "shortest_edge": int,
    "longest_edge": int,
    "size_divisor": int,
    "crop_height": int,
    "crop_width": int,
    "pad_height": int,
    "pad_width": int,
    "rescale_factor": float,
    "rescale_offset": float,
}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        _vendored(Path(args["model_repository"]) / args["model_version"])
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None
        Image.init()
        self.input = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"]]
        self.max_pixels = _number({"max_pixels": MAX_PIXELS, **parameters}, "max_pixels", int)
        self.formats = parameters.get("formats", FORMATS).split(",")
        if unknown := sorted(set(self.formats) - set(Image.OPEN)):
            raise ValueError(f"parameter 'formats' names {', '.join(unknown)}, which this Pillow does not decode")
        self.channels_last = _one_of(parameters, "layout", ("nchw", "nhwc")) == "nhwc"
        sizes = [int(size) for size in config["output"][0]["dims"]]
        self.shape = sizes[-3:-1] if self.channels_last else sizes[-2:]
        numbers = {key: _number(parameters, key, kind) for key, kind in FIELDS.items()}
        self.size = _pair(numbers, "height", "width")
        self.shortest, self.longest = numbers["shortest_edge"], numbers["longest_edge"]
        self.divisor = numbers["size_divisor"] or 1
        if self.size and self.shortest is not None:
            raise ValueError("parameters 'height', 'width' and 'shortest_edge' exclude each other")
        self.resample = _number({"resample": "2", **parameters}, "resample", int)
        if self.resample not in (filters := sorted(map(int, Image.Resampling))):
            raise ValueError(f"parameter 'resample' is '{self.resample}', expected one of: {_shown(filters, ', ')}")
        self.crop = _pair(numbers, "crop_height", "crop_width")
        self.pad = _pair(numbers, "pad_height", "pad_width")
        self.factor, self.offset = numbers["rescale_factor"], numbers["rescale_offset"]
        self.reverse = _one_of(parameters, "channel_order", ("rgb", "bgr")) == "bgr"
        self.mean = _channels("image_mean", parameters.get("image_mean"), 0)
        self.std = _channels("image_std", parameters.get("image_std"), 1)
        self.normalized = "image_mean" in parameters or "image_std" in parameters
        instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
        self.pool = ThreadPoolExecutor(min(THREADS, max(1, len(os.sched_getaffinity(0)) // instances)))

    def execute(self, requests):
        rows = [_rows(request, self.input) for request in requests]
        made = self.pool.map(self._made, [row for several in rows if not isinstance(several, str) for row in several])
        return [_refusal(several) if isinstance(several, str) else self._response(several, made) for several in rows]

    def _response(self, rows, results):
        images = [next(results) for _ in rows]
        for number, found in enumerate(images):
            if isinstance(found, str):
                return _refusal(f"input '{self.input}': image {number} {found}")
        if len(made := {image[0].shape for image in images}) > 1:
            several = " and ".join(_shown(shape) for shape in sorted(made)[:2])
            return _refusal(f"input '{self.input}': images of one request become {several}; send each in its own")
        arrays = map(np.stack, zip(*images, strict=True))
        tensors = [pb_utils.Tensor(*named) for named in zip(self.outputs, arrays, strict=False)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _made(self, raw):
        """The pixels of an encoded image and its height and width, or why there are none."""
        try:
            image = self._decoded(raw)
            return self._pixels(image), np.array([image.height, image.width], np.int32)
        except Refused as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  a decoder may raise anything on a broken file
            if type(error).__name__ == "UnidentifiedImageError":
                return f"is no image that is taken here ({len(raw)} bytes), expected one of: {', '.join(self.formats)}"
            return f"cannot be decoded: {str(error) or type(error).__name__}"

    def _decoded(self, raw):
        from PIL import Image, ImageOps

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(raw), formats=self.formats)
            self._check(image.size, "has")
            return ImageOps.exif_transpose(image).convert("RGB")

    def _pixels(self, image):
        size = self._size(image.height, image.width)
        if size:
            self._check(size[::-1], "would be resized to")
            image = image.resize(size[::-1], resample=self.resample)
        pixels = np.moveaxis(np.asarray(image), -1, 0)
        if self.crop:
            pixels = _cropped(pixels, *self.crop)
        below, right = self._missing(pixels.shape[1:])
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if self.offset is not None:
            pixels = pixels + np.float32(self.offset)
        if self.reverse:
            pixels = pixels[::-1]
        if self.normalized:
            pixels = (pixels - self.mean) / self.std
        if self.pad:
            pixels = np.pad(pixels, ((0, 0), (0, below), (0, right)))
        if self.channels_last:
            pixels = np.moveaxis(pixels, 0, -1)
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def _missing(self, size):
        """Rows and columns to pad; refuses what does not fit before any arithmetic makes floats of it."""
        rows, columns = (wanted - found for wanted, found in zip(self.pad or size, size, strict=True))
        if rows < 0 or columns < 0:
            raise Refused(f"has {_shown(size[::-1])} pixels, more than {_shown(self.pad[::-1])}")
        made = self.pad or size
        if any(wanted not in (-1, found) for wanted, found in zip(self.shape, made, strict=True)):
            raise Refused(f"has {_shown(made[::-1])} pixels, expected {_shown(self.shape[::-1])}")
        return rows, columns

    def _size(self, height, width):
        """Height and width to resize to; None where nothing is resized."""
        if self.shortest is None:
            return self.size
        return tuple(edge - edge % self.divisor for edge in self._scaled(height, width))

    def _scaled(self, height, width):
        """Height and width with the ratio kept."""
        short, long = min(height, width), max(height, width)
        if self.longest is None:
            other = int(self.shortest * long / short)
            return (other, self.shortest) if width <= height else (self.shortest, other)
        edge, exact = self.shortest, None
        if long / short * edge > self.longest:
            exact = self.longest * float(short) / float(long)
            edge = round(exact)
        if short == edge:
            return height, width
        other = int((edge if exact is None else exact) * long / short)
        return (other, edge) if width < height else (edge, other)

    def _check(self, size, verb):
        if size[0] * size[1] > self.max_pixels:
            raise Refused(f"{verb} {_shown(size)} pixels, more than {self.max_pixels} in all (max_pixels)")
        if min(size) < 1:
            raise Refused(f"{verb} {_shown(size)} pixels, expected at least one on each edge")


class Refused(ValueError):
    """Why an image is not taken."""


def _cropped(pixels, height, width):
    """The middle of [channels, rows, columns], zeros around what is smaller."""
    for axis, wanted in ((1, height), (2, width)):
        found = pixels.shape[axis]
        if found >= wanted:
            start = (found - wanted) // 2
            pixels = pixels.take(range(start, start + wanted), axis)
        else:
            before = (wanted - found + 1) // 2
            around = [(0, 0)] * 3
            around[axis] = (before, wanted - found - before)
            pixels = np.pad(pixels, around)
    return pixels


def _rows(request, name):
    array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    if array.ndim != 2 or array.shape[1] != 1:
        return f"input '{name}' has shape {list(array.shape)}, expected [batch, 1]: one encoded image in each row"
    return [bytes(raw) for raw in array[:, 0]]


def _vendored(folder):
    """Pillow that travels with the model comes first; nothing is written into the repository."""
    vendor = folder / "vendor"
    if vendor.is_dir():
        sys.path.insert(0, str(vendor))
        sys.dont_write_bytecode = True


def _number(parameters, key, kind):
    """The parameter's value; None where it is absent."""
    try:
        return kind(parameters[key]) if key in parameters else None
    except ValueError:
        raise ValueError(f"parameter '{key}' is '{parameters[key]}', expected a number") from None


def _one_of(parameters, key, choices):
    """The parameter's value; the first choice where it is absent."""
    value = parameters.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"parameter '{key}' is '{value}', expected one of: {', '.join(choices)}")
    return value


def _pair(numbers, first, second):
    if (numbers[first] is None) != (numbers[second] is None):
        raise ValueError(f"parameters '{first}' and '{second}' go together: one of them is missing")
    return None if numbers[first] is None else (numbers[first], numbers[second])


def _channels(key, text, default):
    """FP32 [3, 1, 1]."""
    try:
        numbers = [default] * 3 if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise ValueError(f"parameter '{key}' is '{text}', expected three numbers")
    return np.array(numbers, dtype=np.float32).reshape(3, 1, 1)


def _shown(size, between=" x "):
    return between.join(map(str, size))


def _refusal(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
