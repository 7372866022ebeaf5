"""Tiny vision models with random weights: as transformers saves them, with image processors, and as ONNX files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests import models

LABELS = ("tabby cat", "Hund", "喵", "pick-up truck", "été", "sailing boat", "\N{ROCKET}")
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}
_HALF = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}
_SQUARE = {"size": {"height": 32, "width": 32}}
_CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


@dataclass(frozen=True)
class Architecture:
    """A family: names of its config class and of its image processor, and fields of both."""

    config: str
    processor: str
    options: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=lambda: _SQUARE)


ARCHITECTURES: dict[str, Architecture] = {
    "vit": Architecture("ViTConfig", "ViT", _VIT),
    "deit": Architecture("DeiTConfig", "DeiT", {**_VIT, "architectures": ["DeiTForImageClassification"]}, _CROPPED),
    "beit": Architecture("BeitConfig", "Beit", _VIT, _SQUARE),
    "resnet": Architecture(
        "ResNetConfig",
        "ConvNext",
        {**_STAGES, "embedding_size": 8, "layer_type": "basic"},
        {"size": {"shortest_edge": 32}},
    ),
    "convnext": Architecture("ConvNextConfig", "ConvNext", _STAGES, {"size": {"shortest_edge": 48}, "crop_pct": 0.9}),
    "swin": Architecture(
        "SwinConfig",
        "ViT",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
        {**_SQUARE, "resample": 3},
    ),
    "mobilenet_v2": Architecture(
        "MobileNetV2Config", "MobileNetV2", {"image_size": 32, "depth_multiplier": 0.35}, _CROPPED
    ),
    "mobilenet_v1": Architecture(
        "MobileNetV1Config", "MobileNetV1", {"image_size": 32, "depth_multiplier": 0.25}, _CROPPED
    ),
    "efficientnet": Architecture(
        "EfficientNetConfig",
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
        {**_SQUARE, "rescale_offset": True},
    ),
    "mobilevit": Architecture(
        "MobileViTConfig",
        "MobileViT",
        {
            "image_size": 32,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
            "num_attention_heads": 2,
        },
        _CROPPED,
    ),
    "dinov2": Architecture("Dinov2Config", "Bit", _VIT, _CROPPED),
}


def save(architecture: str, folder: Path, *, images: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """Write config.json, model.safetensors and preprocessor_config.json; two calls write the same weights.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        folder: made where it is not there.
        images: fields of preprocessor_config.json.
        config: fields of config.json, such as ``num_labels=1`` or ``problem_type="multi_label_classification"``.
    """
    import transformers

    known = ARCHITECTURES[architecture]
    fields: dict[str, Any] = {**known.options, **config}
    if "num_labels" not in config:
        fields |= _named()
    made = getattr(transformers, known.config)(**fields)
    _save(transformers.AutoModelForImageClassification, made, folder)
    processor(architecture, **(images or {})).save_pretrained(folder)
    return folder


def save_detector(architecture: str, folder: Path, **images: Any) -> Path:
    """The same for a detector of images of 64 x 64: ``yolos``, ``detr`` or ``rt_detr``.

    Args:
        images: fields of preprocessor_config.json.
    """
    import transformers

    size = {"height": 64, "width": 64}
    stages = {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "embedding_size": 8, "layer_type": "basic"}
    layers = {f"{half}_{what}": n for half in ("encoder", "decoder") for what, n in _HALF.items()}
    if architecture == "yolos":
        config = transformers.YolosConfig(
            **{**_VIT, "image_size": [64, 64], "patch_size": 16}, num_detection_tokens=9, **_named()
        )
    elif architecture == "detr":
        backbone = transformers.ResNetConfig(**stages, out_features=["stage4"])
        config = transformers.DetrConfig(
            use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, backbone_config=backbone,
            d_model=16, num_queries=10, **layers, **_named(),
        )  # fmt: skip
    else:
        backbone = transformers.RTDetrResNetConfig(**stages, out_features=["stage2", "stage3", "stage4"])
        config = transformers.RTDetrConfig(
            backbone_config=backbone, encoder_in_channels=[16] * 3, decoder_in_channels=[16] * 3, d_model=16,
            encoder_hidden_dim=16, decoder_n_points=2, num_queries=12, num_denoising=0, **layers, **_named(),
        )  # fmt: skip
    _save(transformers.AutoModelForObjectDetection, config, folder)
    kind = {"yolos": "Yolos", "detr": "Detr", "rt_detr": "RTDetr"}[architecture]
    _processor(kind, {"size": size, **images}).save_pretrained(folder)
    return folder


def _named() -> dict[str, Any]:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}


def _save(auto: Any, config: Any, folder: Path) -> None:
    import torch
    from transformers.utils import logging

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config)
        _randomize(model)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.eval().save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


def processor(architecture: str, **images: Any) -> Any:
    """transformers' image processor of the architecture that computes with Pillow."""
    known = ARCHITECTURES[architecture]
    return _processor(known.processor, {**known.images, **images})


def _processor(kind: str, fields: Mapping[str, Any]) -> Any:
    import transformers

    newer = int(transformers.__version__.split(".")[0]) >= 5
    return getattr(transformers, f"{kind}ImageProcessor{'Pil' if newer else ''}")(**fields)


def classifier_onnx(path: Path, *, layout: str = "NCHW", batch: int | str = "batch", gain: float = 1.0) -> Path:
    """A convolution, its mean and a matrix: ``data`` FP32 [batch, 3, 32, 32] or [batch, 32, 32, 3] to ``classes``
    [batch, 7]; ``gain`` scales the weights to the pixels' range."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(5)
    kernels = (random.standard_normal((12, 3, 5, 5)) * 0.3 * gain).astype(np.float32)
    matrix = random.standard_normal((12, len(LABELS))).astype(np.float32)
    transposed = [helper.make_node("Transpose", ["data"], ["first"], perm=[0, 3, 1, 2])] if layout == "NHWC" else []
    nodes = [
        *transposed,
        helper.make_node("Conv", ["first" if transposed else "data", "kernels"], ["maps"], strides=[3, 3]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["classes"]),
    ]
    sizes = [3, 32, 32] if layout == "NCHW" else [32, 32, 3]
    model = models.onnx_model(
        [("data", TensorProto.FLOAT, [batch, *sizes])],
        [("classes", TensorProto.FLOAT, [batch, len(LABELS)])],
        nodes,
        [numpy_helper.from_array(kernels, "kernels"), numpy_helper.from_array(matrix, "matrix")],
    )
    onnx.save(model, str(path))
    return path


def _randomize(model: Any) -> None:
    """Weights under which answers vary over images and stay of the order of one."""
    import torch

    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim < 2:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            else:
                parameter.normal_(0.0, 1.3 / math.sqrt(math.prod(parameter.shape[1:])))
