"""What becomes of an image before the engine sees it: read from a transformers image processor or from the spec, and
written as parameters of ``templates/image/model.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repo_builder.errors import SourceCorruptError, UnknownTaskError
from repo_builder.spec import ImageOptions

Pair = tuple[int, int]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageSettings:
    """The steps, in their order; None leaves a step out.

    Attributes:
        size: height and width to resize to.
        shortest_edge: resize so that the shorter edge has this many pixels; ``longest_edge`` limits the other, and both
            are cut down to a multiple of ``divisor``.
        resample: number of Pillow's ``Resampling``.
        crop: height and width of the middle that is kept.
        rescale_factor, rescale_offset: every value times the one, plus the other.
        reverse_channels: RGB becomes BGR.
        mean, std: subtracted, then divided by, channel by channel.
        pad: height and width to fill up to with zeros, below and to the right.
        channels_last: the axes are height, width, channels.
    """

    size: Pair | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    divisor: int | None = None
    resample: int = 2
    crop: Pair | None = None
    rescale_factor: float | None = None
    rescale_offset: float | None = None
    reverse_channels: bool = False
    mean: Triple | None = None
    std: Triple | None = None
    pad: Pair | None = None
    channels_last: bool = False

    @property
    def shape(self) -> Pair | None:
        """Height and width of every image; None where they follow from the image."""
        return self.pad or self.crop or self.size

    def axes(self) -> tuple[int, ...]:
        """The axes of an image as the engine takes them, without the batch's."""
        height, width = self.shape or (-1, -1)
        return (height, width, 3) if self.channels_last else (3, height, width)

    def parameters(self) -> dict[str, str]:
        """The config parameters that ``templates/image/model.py`` reads; numbers as Python writes them, to the bit."""
        values: dict[str, Any] = {
            "shortest_edge": self.shortest_edge,
            "longest_edge": self.longest_edge,
            "size_divisor": self.divisor,
            "resample": self.resample if self.size or self.shortest_edge else None,
            "rescale_factor": self.rescale_factor,
            "rescale_offset": self.rescale_offset,
            "channel_order": "bgr" if self.reverse_channels else None,
            "layout": "nhwc" if self.channels_last else None,
            "image_mean": ",".join(map(repr, self.mean)) if self.mean else None,
            "image_std": ",".join(map(repr, self.std)) if self.std else None,
        }
        for prefix, pair in (("", self.size), ("crop_", self.crop), ("pad_", self.pad)):
            if pair:
                values |= {f"{prefix}height": pair[0], f"{prefix}width": pair[1]}
        return {key: str(value) for key, value in values.items() if value is not None}


FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's ``Resampling``, by number."""


def asked(options: ImageOptions, layout: str) -> ImageSettings:
    """The settings that a spec's ``image:`` asks for; ``layout`` is ``NCHW`` or ``NHWC``."""
    return ImageSettings(
        size=options.size,
        shortest_edge=options.shortest_edge,
        resample=FILTERS.index(options.resample),
        crop=options.crop,
        rescale_factor=options.rescale_factor,
        rescale_offset=options.rescale_offset,
        reverse_channels=options.channels == "BGR",
        mean=options.mean or ((0.0, 0.0, 0.0) if options.std else None),
        std=options.std or ((1.0, 1.0, 1.0) if options.mean else None),
        pad=options.pad,
        channels_last=layout == "NHWC",
    )


_PLAIN = (
    *("ViT", "DeiT", "Bit", "CLIP", "Siglip", "Pvt", "MobileNetV1", "Blip", "ChineseCLIP", "Beit", "MobileNetV2"),
    *("ConvNext", "Levit", "EfficientNet", "MobileViT", "Segformer"),
    *(DETECTORS := ("Detr", "Yolos", "RTDetr", "ConditionalDetr", "DeformableDetr")),
)
"""Image processors of transformers whose steps are those of :class:`ImageSettings`, as their code says."""


def read(processor: Any) -> ImageSettings:
    """The settings of a Pillow image processor, defaults of its class included.

    Raises:
        UnknownTaskError: a class with steps that nobody looked at.
        SourceCorruptError: values that the class itself would refuse.
    """
    kind = kind_of(processor)
    if kind not in _PLAIN:
        raise UnknownTaskError(
            f"the image processor is a {type(processor).__name__}",
            expected="one of " + ", ".join(f"{one}ImageProcessor" for one in _PLAIN),
            mend="choose the task 'tensors' with a module.py:factory, and prepare the images in the client",
        )
    own = Settings(processor)
    if kind in DETECTORS and own.get("do_pad") and own.pair("pad_size"):
        raise UnknownTaskError(
            "preprocessor_config.json pads images to a pad_size, and a mask tells the model where they end",
            expected="no pad_size: each image is taken as it is resized",
            mend="set do_pad to false and size to the model's height and width",
        )
    resized = _resized(kind, own)
    offset = -1.0 if kind == "EfficientNet" and own.get("do_rescale") and own.get("rescale_offset") else None
    mean, std = _normalized(kind, own)
    return ImageSettings(
        **resized,
        resample=int(own.get("resample", 2)),
        rescale_factor=float(own.get("rescale_factor", 1 / 255)) if own.get("do_rescale") else None,
        rescale_offset=offset,
        reverse_channels=kind == "MobileViT" and bool(own.get("do_flip_channel_order")),
        mean=mean,
        std=std,
        pad=own.pair("pad_size") if own.get("do_pad") and kind in _PADDING else None,
    )


def one_size(settings: ImageSettings) -> Pair:
    """Height and width of every image.

    Raises:
        UnknownTaskError: they follow from the image.
    """
    if settings.shape is None:
        raise UnknownTaskError(
            "preprocessor_config.json gives every image a size of its own",
            expected="size with height and width, or a crop_size: images of one size make a batch",
            mend="set do_center_crop and crop_size in preprocessor_config.json",
        )
    return settings.shape


_YOLOS_DIVISOR = 16
"""``mod_size`` of transformers' get_size_with_aspect_ratio_yolos."""


def kind_of(processor: Any) -> str:
    """The class's name without its endings: ``ViT``, ``Detr``."""
    name = type(processor).__name__
    return name.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")


_PADDING = ("ViT", "DeiT", "Bit", "CLIP", "Siglip", "Pvt", "MobileNetV1", "Levit")
"""Those that use the common code, which pads."""


class Settings:
    """A processor's attributes; sizes as mappings, whichever of transformers' ways they are kept in."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def get(self, name: str, default: Any = None) -> Any:
        value = getattr(self._processor, name, None)
        return default if value is None else value

    def sizes(self, name: str) -> dict[str, int]:
        found = self.get(name, {})
        pairs = found.items() if isinstance(found, Mapping) else vars(found).items()
        return {str(key): int(value) for key, value in pairs if value}

    def pair(self, name: str) -> Pair | None:
        sizes = self.sizes(name)
        if not sizes:
            return None
        if set(sizes) != {"height", "width"}:
            raise SourceCorruptError(
                f"{name} in preprocessor_config.json has {', '.join(sizes)}",
                expected="height and width",
                mend="save the image processor again with save_pretrained",
            )
        return sizes["height"], sizes["width"]

    def triple(self, name: str) -> Triple:
        value = self.get(name)
        numbers = [value] * 3 if isinstance(value, (int, float)) else list(value or ())
        if len(numbers) != 3:
            raise SourceCorruptError(
                f"{name} in preprocessor_config.json is {value!r}", expected="three numbers, for red, green and blue"
            )
        return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _resized(kind: str, own: Settings) -> dict[str, Any]:
    """Fields for resizing and cropping."""
    crop = own.pair("crop_size") if own.get("do_center_crop") else None
    if not own.get("do_resize"):
        return {"crop": crop}
    sizes = own.sizes("size")
    shortest, longest = sizes.get("shortest_edge"), sizes.get("longest_edge")
    if kind == "ConvNext" and shortest:
        if shortest >= 384:
            return {"size": (shortest, shortest), "crop": crop}
        percent = float(own.get("crop_pct", 224 / 256))
        return {"shortest_edge": int(shortest / percent), "crop": _both((shortest, shortest), crop)}
    if kind == "Levit" and shortest:
        return {"shortest_edge": int((256 / 224) * shortest), "crop": crop}
    if shortest:
        divisor = _YOLOS_DIVISOR if kind == "Yolos" else None
        return {"shortest_edge": shortest, "longest_edge": longest, "divisor": divisor, "crop": crop}
    if set(sizes) != {"height", "width"}:
        raise SourceCorruptError(
            f"size in preprocessor_config.json has {', '.join(sizes) or 'nothing'}",
            expected="height and width, or shortest_edge",
            mend="save the image processor again with save_pretrained",
        )
    return {"size": (sizes["height"], sizes["width"]), "crop": crop}


def _both(first: Pair, then: Pair | None) -> Pair:
    """Two crops of the middle, one after the other, as one; else they are refused."""
    if then is None or then == first:
        return first
    raise UnknownTaskError(
        f"preprocessor_config.json crops to {first} and then to {then}",
        expected="one crop",
        mend="set do_center_crop to false, or crop_size to the shortest edge",
    )


def _normalized(kind: str, own: Settings) -> tuple[Triple | None, Triple | None]:
    again = kind == "EfficientNet" and own.get("include_top")
    if kind == "MobileViT" or not (own.get("do_normalize") or again):
        return None, None
    std = own.triple("image_std")
    if not again:
        return own.triple("image_mean"), std
    if not own.get("do_normalize"):
        return (0.0, 0.0, 0.0), std
    return own.triple("image_mean"), (std[0] ** 2, std[1] ** 2, std[2] ** 2)
