"""Prior boxes of SSD's PriorBox layer: constants, as they follow from sizes alone (weiliu89/caffe, prior_box_layer)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from repo_builder.formats.caffe_net import Layer

Shape = tuple[int, ...]


def count(layer: Layer, bottoms: Sequence[Shape]) -> int:
    """Numbers in one channel: four for each box of each place.

    Raises:
        ConversionError: bottoms or parameters that the layer does not take.
    """
    if len(bottoms) != 2 or any(len(shape) != 4 for shape in bottoms):
        raise layer.refuse(f"has {len(bottoms)} bottoms", expected="a feature map and the image, both N x C x H x W")
    return bottoms[0][2] * bottoms[0][3] * len(_boxes(layer)) * 4


def values(layer: Layer, bottoms: Sequence[Shape]) -> np.ndarray[Any, Any]:
    """float32 [1, 2, n]: corners as parts of the image (xmin, ymin, xmax, ymax), and their variances."""
    told = layer.message.prior_box_param
    (rows, columns), image = bottoms[0][2:], bottoms[1][2:]
    if told.img_size or told.img_h or told.img_w:
        image = (told.img_h or told.img_size, told.img_w or told.img_size)
    if told.step or told.step_h or told.step_w:
        steps: tuple[float, float] = (told.step_h or told.step, told.step_w or told.step)
    else:
        steps = (image[0] / rows, image[1] / columns)
    y = (np.arange(rows) + told.offset)[:, None, None] * steps[0]
    x = (np.arange(columns) + told.offset)[None, :, None] * steps[1]
    width, height = (np.array(side)[None, None] for side in zip(*_boxes(layer), strict=True))
    corners = np.stack(
        np.broadcast_arrays(
            (x - width / 2) / image[1],
            (y - height / 2) / image[0],
            (x + width / 2) / image[1],
            (y + height / 2) / image[0],
        ),
        axis=-1,
    ).reshape(-1)
    if told.clip:
        corners = corners.clip(0, 1)
    variance = list(told.variance) or [0.1]
    spread = np.resize(np.array(variance), corners.size)
    return np.stack([corners, spread])[None].astype(np.float32)


def _boxes(layer: Layer) -> list[tuple[float, float]]:
    """Width and height in pixels of the boxes at each place, in the layer's order."""
    told = layer.message.prior_box_param
    smallest, largest = list(told.min_size), list(told.max_size)
    lacks = not smallest or len(largest) not in (0, len(smallest)) or len(told.variance) not in (0, 1, 4)
    if lacks or min(smallest) <= 0 or told.width or told.height or told.offset_h or told.offset_w:
        raise layer.refuse(
            f"has {len(smallest)} min_size, {len(largest)} max_size and {len(told.variance)} variance",
            expected="min_size, a max_size for each or none, one or four variances, no width, height or offset_h",
        )
    if any(large <= small for small, large in zip(smallest, largest, strict=False)):
        raise layer.refuse(
            f"has the max_size {largest} over the min_size {smallest}", expected="larger ones, as Caffe demands"
        )
    ratios: list[float] = []
    for ratio in told.aspect_ratio:
        for one in (ratio, 1 / ratio) if told.flip and ratio else (ratio,):
            if one <= 0:
                raise layer.refuse(f"has the aspect ratio {one}", expected="more than 0")
            if all(abs(one - other) >= 1e-6 for other in (1.0, *ratios)):
                ratios.append(one)
    boxes = []
    for number, size in enumerate(smallest):
        boxes.append((size, size))
        if largest:
            boxes.append((sqrt(size * largest[number]),) * 2)
        boxes.extend((size * sqrt(ratio), size / sqrt(ratio)) for ratio in ratios)
    return boxes
