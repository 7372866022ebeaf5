"""Sample images of vision tasks: the spec's own, or 64 made ones of many sizes, kinds and encodings, the same bytes
every time."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import MissingDependencyError, SourceMissingError, SpecError, first_line
from repo_builder.spec import ModelSpec

_SIZES = ((1, 1), (3, 200), (200, 3), (33, 47), (64, 64), (97, 31), (224, 224), (320, 200), (150, 401))
_KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "JPEG", {"quality": 95}),
    ("RGB", "PNG", {}),
    ("RGB", "JPEG", {"quality": 30, "subsampling": 2}),
    ("L", "JPEG", {"quality": 80}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {}),
    ("CMYK", "JPEG", {"quality": 85}),
    ("L", "PNG", {}),
    ("LA", "PNG", {}),
    ("RGB", "JPEG", {"quality": 75, "progressive": True}),
    ("1", "PNG", {}),
    ("I;16", "PNG", {}),
    ("RGB", "WEBP", {"quality": 80}),
    ("P", "GIF", {}),
    ("RGB", "BMP", {}),
    ("RGB", "TIFF", {}),
)
_COUNT = 64
_ORIENTATION = 0x0112


def chosen(model: ModelSpec) -> list[bytes]:
    """The files that the spec names, else :func:`built_in`."""
    return [Path(path).read_bytes() for path in model.samples.images] or built_in()


def check(model: ModelSpec) -> None:
    """Refuse sample images that cannot be decoded, before anything is converted.

    Raises:
        MissingDependencyError: Pillow is not installed, which the base package does not bring.
        SourceMissingError, SpecError: a file is not there, or is no image.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "tasks of images need Pillow, which travels with the repository", mend="pip install pillow"
        ) from error
    for path in model.samples.images:
        if not Path(path).is_file():
            raise SourceMissingError(f"the sample image {path} does not exist", stage="proof")
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:
            raise SpecError(
                f"samples.images: {path} cannot be decoded ({first_line(error)})",
                expected="image files that Pillow opens",
                mend="leave it out",
                stage="proof",
            ) from error


def built_in() -> list[bytes]:
    """64 encoded images: JPEG (with every EXIF orientation), PNG of every mode, WebP, GIF (animated), BMP, TIFF."""
    return list(_made())


def _made() -> Iterator[bytes]:
    from PIL import Image

    random = np.random.default_rng(0)
    orientations = itertools.cycle(range(1, 9))
    for number in range(_COUNT):
        mode, encoding, options = _KINDS[number % len(_KINDS)]
        height, width = _SIZES[(number * 5 + number // len(_KINDS)) % len(_SIZES)]
        picture = Image.fromarray(_pixels(random, height, width))
        image = picture if mode == "RGB" else _converted(picture, mode, random)
        options = dict(options)
        if encoding == "JPEG" and mode == "RGB":
            exif = Image.Exif()
            exif[_ORIENTATION] = next(orientations)
            options["exif"] = exif
        if encoding == "GIF":
            options |= {"save_all": True, "append_images": [image.rotate(180)]}
        buffer = io.BytesIO()
        image.save(buffer, encoding, **options)
        yield buffer.getvalue()


def _pixels(random: Any, height: int, width: int) -> np.ndarray[Any, Any]:
    """Waves and noise of three colours, uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width] / 16.0
    planes = []
    for _ in range(3):
        a, b, phase, level, noise = random.uniform((-2, -2, 0, 60, 0), (2, 2, 6, 190, 60))
        wave = level + 60 * np.sin(a * rows + b * columns + phase)
        planes.append(wave + noise * random.standard_normal((height, width)))
    made: np.ndarray[Any, Any] = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return made


def _converted(picture: Any, mode: str, random: Any) -> Any:
    from PIL import Image

    if mode == "I;16":
        grey = np.asarray(picture.convert("L"), dtype=np.uint16)
        return Image.fromarray(grey * 200 + random.integers(0, 200, grey.shape, dtype=np.uint16))
    image = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        alpha = random.integers(0, 256, (picture.height, picture.width), dtype=np.uint8)
        image.putalpha(Image.fromarray(alpha))
    return image
