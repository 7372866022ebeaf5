"""The pixels that a spec's ``image:`` describes, computed by other means than the served step: Pillow's own cropping
and channels, and a table of 256 values for each channel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from repo_builder.spec import ImageOptions


def pixels(raw: bytes, options: ImageOptions, layout: str) -> np.ndarray[Any, Any]:
    """FP32 [1, 3, height, width], or [1, height, width, 3] where ``layout`` is NHWC.

    Raises:
        ValueError: the image is larger than ``pad``.
        OSError: Pillow does not decode it.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")
    resample = Image.Resampling[options.resample.upper()]
    if options.size:
        image = image.resize(options.size[::-1], resample)
    elif edge := options.shortest_edge:
        short = min(image.size)
        image = image.resize((edge * image.width // short, edge * image.height // short), resample)
    if options.crop:
        height, width = options.crop
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    planes = [np.asarray(plane) for plane in image.split()[:: -1 if options.channels == "BGR" else 1]]
    values = np.arange(256) * np.float64(1 if options.rescale_factor is None else options.rescale_factor)
    values += options.rescale_offset or 0
    found, room = planes[0].shape, options.pad or planes[0].shape
    if any(a > b for a, b in zip(found, room, strict=True)):
        raise ValueError(f"a sample image has {found[0]} rows of {found[1]} pixels, more than image.pad {list(room)}")
    canvas = np.zeros((3, *room))
    for number, plane in enumerate(planes):
        mean = options.mean[number] if options.mean else 0
        std = options.std[number] if options.std else 1
        canvas[number, : plane.shape[0], : plane.shape[1]] = ((values - mean) / std)[plane]
    placed = canvas if layout == "NCHW" else canvas.transpose(1, 2, 0)
    return np.ascontiguousarray(placed[None], dtype=np.float32)
