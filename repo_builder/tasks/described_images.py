"""Classifiers whose files do not tell what their pixels are: the spec's ``image:``, ``labels:`` and ``scores:`` do."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from repo_builder import formats
from repo_builder.artifact import Artifact
from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof
from repo_builder.spec import ImageOptions, ModelSpec
from repo_builder.tasks import class_ranking, classification, image, image_settings, sample_images
from repo_builder.tasks.engine_model import max_batch_size
from repo_builder.tasks.ensemble import Step
from repo_builder.tasks.oracles import image_pixels
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import TensorSpec

_PIXELS = "pixel_values"


def check(model: ModelSpec, source: Artifact) -> None:
    """Refuse at the start what the spec alone shows, and what it and a source of known tensors show together.

    Raises:
        SpecError, SourceMissingError: no ``image:``, labels that cannot be read, a model that takes no such pixels.
    """
    options = _options(model)
    image.check_parameters(model, image_settings.asked(options, options.layout or "NCHW"))
    _told(model)
    if source.inputs:
        _layout(options, source)
    if source.outputs:
        _values(model, source)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    options = _options(model)
    layout = _layout(options, engine)
    values = engine.outputs[_values(model, engine)]
    labels = _labels(model, values)
    name, size = f"{model.public_name}_ranking", max_batch_size(model, engine)
    ranking = class_ranking.planned(name, values, labels, model.scores, size)
    inner = {engine.inputs[0].name: _PIXELS, values.name: class_ranking.VALUES}
    return image.image_ensemble(
        model,
        engine,
        image_settings.asked(options, layout),
        classification.OUTPUTS,
        labels={classification.LOGITS: labels},
        inner=inner,
        behind={"ranking": Step(ranking, {inner: public for public, inner in classification.OUTPUTS.items()})},
    )


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each image alone: Pillow's pixels (:mod:`repo_builder.tasks.oracles.image_pixels`) through the source itself."""
    import PIL

    options = _options(model)
    layout = _layout(options, engine)
    place = _values(model, engine)
    labels = np.array([label.encode() for label in _labels(model, engine.outputs[place])], dtype=object)
    runtime = formats.get(source.format)
    cases = []
    for raw in _fitting(model, options):
        pixels = {engine.inputs[0].name: image_pixels.pixels(raw, options, layout)}
        found = program.run(pixels)[place] if program else runtime.run(source, pixels)[source.outputs[place].name]
        logits = np.asarray(found, dtype=np.float32).reshape(1, -1)
        scores = _scores(model.scores, logits.astype(np.float64))
        order = np.argsort(-scores, axis=-1, kind="stable")
        outputs = {
            classification.LABELS: labels[order],
            classification.SCORES: np.take_along_axis(scores, order, -1).astype(np.float32),
            classification.LOGITS: logits,
        }
        cases.append(Case({image.IMAGE: np.array([[raw]], dtype=object)}, outputs))
    _not_scored_twice(model, [case.outputs[classification.LOGITS] for case in cases])
    who = "PyTorch" if program else {"onnx": "ONNX Runtime", "torchscript": "PyTorch"}.get(source.format)
    runs = who or cast(Any, runtime).RUNTIME
    return Proof(
        model.public_name,
        tuple(cases),
        engine.batch is not None,
        tolerances(model, classification.TOLERANCES),
        {},
        f"the {source.format} model in {runs} on pixels of Pillow {PIL.__version__}, each image alone",
        classification.RANKED,
    )


def _not_scored_twice(model: ModelSpec, answers: Sequence[np.ndarray[Any, Any]]) -> None:
    """Refuse to make scores of a model's own: values of 0 to 1 that add up to 1 for every image.

    Raises:
        SpecError: they are.
    """
    rows = np.concatenate(answers) if answers else np.zeros((0, 1))
    if model.scores == "none" or rows.shape[0] == 0 or rows.shape[1] < 2:
        return
    if rows.min() >= 0 and rows.max() <= 1 and np.allclose(rows.sum(-1), 1, rtol=0, atol=1e-3):
        raise SpecError(
            f"scores: {model.scores}, and the model gives scores itself: its values add up to 1 for every sample",
            expected=f"a model without softmax at its end, of which {model.scores} makes scores",
            mend="leave scores out",
        )


def _scores(function: str, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if function == "none":
        return logits
    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _fitting(model: ModelSpec, options: ImageOptions) -> list[bytes]:
    """The samples; of the built-in ones those that fit into ``pad``, where neither ``size`` nor ``crop`` says so."""
    if model.samples.images or not options.pad or options.size or options.crop:
        return sample_images.chosen(model)
    room, edge = options.pad[::-1], options.shortest_edge
    sized = [(raw, _size(raw, edge)) for raw in sample_images.built_in()]
    return [raw for raw, size in sized if all(a <= b for a, b in zip(size, room, strict=True))]


def _size(raw: bytes, edge: int | None) -> tuple[int, int]:
    """Width and height, turned as the orientation says, resized to a shorter edge where there is one."""
    from PIL import Image, ImageOps

    width, height = ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).size
    short = min(width, height)
    return (edge * width // short, edge * height // short) if edge else (width, height)


def _options(model: ModelSpec) -> ImageOptions:
    if model.image is None:
        raise SpecError(
            "nothing tells what becomes of an image before this model sees it",
            expected="a Hugging Face folder with preprocessor_config.json, or `image:` in the spec",
            mend="write a spec with image: {size: ..., mean: ..., ...}, as the model was trained "
            "(docs/tasks/image-classification.md)",
        )
    return model.image


def _layout(options: ImageOptions, model: Artifact) -> str:
    """``NCHW`` or ``NHWC``, as the one input says and the spec does not contradict."""
    spec = model.inputs[0]
    height, width = options.pad or options.crop or options.size or (0, 0)
    wanted = {"NCHW": (3, height, width), "NHWC": (height, width, 3)}
    fits = [
        layout
        for layout, sizes in wanted.items()
        if len(spec.shape) == 4
        and options.layout in (None, layout)
        and all(isinstance(a, str) or a == b for a, b in zip(spec.shape[1:], sizes, strict=True))
        and (isinstance(spec.shape[0], str) or spec.shape[0] == 1)
    ]
    if len(model.inputs) != 1 or spec.dtype != "FP32" or not fits:
        shapes = " or ".join(f"[batch, {', '.join(map(str, sizes))}]" for sizes in wanted.values())
        raise SpecError(
            f"image: makes images of {height} x {width} pixels (height x width), and the model takes "
            + "; ".join(map(str, model.inputs)),
            expected=f"one FP32 input {shapes}, with a batch of 1 or of any size",
            mend="correct size, crop, pad or layout of `image:`, or choose the task 'tensors'",
        )
    if len(fits) > 1:
        raise SpecError(
            f"the model's input {spec} does not tell where its channels are",
            expected="image.layout in the spec",
            mend="add layout: NCHW (PyTorch, Caffe, MXNet) or layout: NHWC (TensorFlow)",
        )
    return fits[0]


def _values(model: ModelSpec, artifact: Artifact) -> int:
    """Which output has a value for each label: the only one, or the only one with as many as there are labels."""
    told = _told(model)
    fits = [
        number
        for number, spec in enumerate(artifact.outputs)
        if (count := _count(spec)) and (count == len(told) if told else len(artifact.outputs) == 1)
    ]
    if len(fits) == 1:
        return fits[0]
    found = f"there are {len(told)} labels" if told else "there are no `labels:`"
    raise SpecError(
        f"{found}, and the model gives " + "; ".join(map(str, artifact.outputs)),
        expected="one floating-point output of one fixed size, and a label for each of its values",
        mend="name as many labels as the model has classes (ImageNet models of TensorFlow have 1001, the first of them "
        "'background')",
    )


def _count(spec: TensorSpec) -> int:
    """Values in a row; 0 where that is not fixed, or where they are no scores."""
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1 or not sizes or not spec.dtype.startswith("FP"):
        return 0
    return int(np.prod(sizes))


def _labels(model: ModelSpec, values: TensorSpec) -> Sequence[str]:
    return _told(model) or tuple(f"LABEL_{number}" for number in range(_count(values)))


def _told(model: ModelSpec) -> tuple[str, ...]:
    """The spec's labels; none where it names none."""
    if not isinstance(model.labels, str):
        return model.labels
    path = Path(model.labels)
    if not path.is_file():
        raise SourceMissingError(f"the file of labels {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except ValueError as error:
        raise SpecError(f"{path} cannot be read ({error})", expected="UTF-8 text or JSON") from error
    if not isinstance(found, list) or not found or not all(isinstance(label, str) and label.strip() for label in found):
        raise SpecError(
            f"{path} holds no list of labels", expected="a label a line without empty lines, or a JSON list of strings"
        )
    return tuple(found)
