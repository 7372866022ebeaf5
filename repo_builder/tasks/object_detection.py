"""Task ``object-detection``: encoded images in; labels, scores and boxes out, best first."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.formats import huggingface_detector, huggingface_model, huggingface_vision
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Arrays, Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import image, image_settings, label_names, postprocess, sample_images, text
from repo_builder.tasks.ensemble import Step
from repo_builder.tasks.tolerances import tolerances

NAME = "object-detection"
SOURCES = frozenset({"huggingface"})
LABELS, SCORES, BOXES = "LABELS", "SCORES", "BOXES"
DEFAULT_THRESHOLD = "0.5"
"""As transformers' pipeline has it."""
_ENGINE = ("logits", "pred_boxes")
_SCORING: dict[str, dict[str, str]] = {
    "Detr": {"scoring": "softmax"},
    "Yolos": {"scoring": "softmax"},
    "RTDetr": {"scoring": "sigmoid"},
    "ConditionalDetr": {"scoring": "sigmoid", "top_k": "100"},
    "DeformableDetr": {"scoring": "sigmoid", "top_k": "100"},
}
"""By image processor: what its ``post_process_object_detection`` does, as parameters of templates/detections."""
_NEAR = 1e-5
"""Scores no further apart count as equal: rounding decides which comes first, or whether one passes the threshold."""


def check(model: ModelSpec, source: Artifact) -> None:
    """Refuse at the start sample images that cannot be decoded, and a threshold that is no number from 0 to 1."""
    sample_images.check(model)
    threshold(model)


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Logits and boxes; scores and their order are the postprocessing's, so that rounding of the many that nobody
    wants does not look like an error of the conversion."""
    processor = huggingface_vision.processor(source)
    _scoring(processor)
    settings = image_settings.read(processor)
    image.check_parameters(model, settings)
    shape = (3, *(settings.shape or ("height", "width")))
    program = huggingface_vision.load(source, "AutoModelForObjectDetection", shape)
    huggingface_detector.steady(program.module.model)
    import torch

    class Detection(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.detector = program.module

        def forward(self, pixel_values: Any) -> Any:
            found = self.detector(pixel_values)
            return tuple(found[name] for name in _ENGINE)

    return TorchProgram(Detection().eval(), "eager", program.inputs, _ENGINE, program.examples)


def threshold(model: ModelSpec) -> float:
    """Objects with a higher score are given: the spec's, else 0.5.

    Raises:
        SpecError: it is no number from 0 to 1.
    """
    asked = text.parameter(model, "postprocess", "threshold") or DEFAULT_THRESHOLD
    try:
        found = float(asked)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise SpecError(
            f"step_configs: postprocess: threshold is {asked!r}",
            expected="a number from 0 to 1",
            mend="correct it in the spec",
        )
    return found


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    processor = huggingface_vision.processor(source)
    parameters = {
        "labels": json.dumps(label_names.read(source), ensure_ascii=False),
        "threshold": DEFAULT_THRESHOLD,
        **_scoring(processor),
    }
    inputs = [{"name": spec.name, "data_type": "TYPE_FP32", "dims": list(spec.dims[1:])} for spec in engine.outputs]
    inputs.append({"name": image.SIZES, "data_type": "TYPE_INT32", "dims": [2]})
    outputs = [
        {"name": LABELS, "data_type": "TYPE_STRING", "dims": [-1]},
        {"name": SCORES, "data_type": "TYPE_FP32", "dims": [-1]},
        {"name": BOXES, "data_type": "TYPE_FP32", "dims": [-1, 4]},
    ]
    objects = postprocess.planned(model, engine, "detections", None, inputs, outputs, parameters)
    return image.image_ensemble(
        model,
        engine,
        image_settings.read(processor),
        {name: name for name in (LABELS, SCORES, BOXES)},
        behind={"postprocess": Step(objects)},
        sizes=True,
    )


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each image alone through transformers' pipeline, up to ``post_process_object_detection`` of the folder's Pillow
    image processor: the pipeline itself then cuts the corners down to whole pixels. The best come first. Where images
    keep their ratio, so that they do not share a request, each is sent alone.

    Raises:
        SpecError: rounding decides about an object of every sample.
    """
    import PIL
    import torch
    import transformers
    from PIL import Image

    limit = threshold(model)
    detect = huggingface_model.pipeline(NAME, source)
    detect.image_processor = huggingface_vision.processor(source)
    names = label_names.names(detect.model.config)
    cases = []
    for raw in sample_images.chosen(model):
        try:
            parts = detect.preprocess(Image.open(io.BytesIO(raw)))
        except ValueError:  # resized to nothing
            continue
        ran = detect.forward(parts)
        (found,) = detect.image_processor.post_process_object_detection(ran, limit - _NEAR, ran["target_size"])
        scores = found["scores"].numpy().astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        if np.any(np.abs(np.diff([*scores[order], limit])) <= _NEAR) or np.any(scores <= limit + _NEAR):
            continue
        labels = [names[number].encode() for number in found["labels"].numpy()[order]]
        outputs = _padded(labels, scores[order], found["boxes"].numpy()[order])
        cases.append(Case({image.IMAGE: np.array([[raw]], dtype=object)}, outputs))
    if not cases:
        raise SpecError(
            f"in every sample two scores, or one and the threshold {limit}, are equal but for {_NEAR}",
            expected="a sample whose objects rounding does not decide about",
            mend="name others (samples.images), or another threshold",
        )
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}) with Pillow {PIL.__version__}"
    defaults = {LABELS: Tolerance(), SCORES: Tolerance(1e-4), BOXES: Tolerance(max_rel_error=1e-4)}
    return Proof(
        model.public_name,
        tuple(cases),
        image_settings.read(detect.image_processor).shape is not None,
        tolerances(model, defaults),
        dict.fromkeys(defaults, LABELS),
        f"{versions} on torch {torch.__version__}, each image alone, scores above {limit}",
    )


def _padded(labels: list[bytes], scores: np.ndarray[Any, Any], boxes: np.ndarray[Any, Any]) -> Arrays:
    """The objects of one image as the tensors of a batch of one; where there are none, one of padding."""
    count = max(1, len(labels))
    arrays: dict[str, np.ndarray[Any, Any]] = {
        LABELS: np.full((1, count), b"", dtype=object),
        SCORES: np.zeros((1, count), np.float32),
        BOXES: np.zeros((1, count, 4), np.float32),
    }
    for array, values in zip(arrays.values(), (labels, scores, boxes), strict=True):
        array[0, : len(labels)] = values
    return arrays


def _scoring(processor: Any) -> dict[str, str]:
    kind = image_settings.kind_of(processor)
    if kind not in _SCORING:
        raise UnknownTaskError(
            f"the image processor is a {type(processor).__name__}",
            expected="one of " + ", ".join(f"{one}ImageProcessor" for one in _SCORING),
            mend="choose the task 'tensors' with a module.py:factory, and find the boxes in the client",
        )
    return _SCORING[kind]
