"""Task ``image-classification``: encoded images in, labels and scores out, best first.

A Hugging Face folder tells its preprocessing, and its graph scores and sorts; of other sources the spec tells it
(:mod:`repo_builder.tasks.described_images`), and a step behind the engine scores and sorts.
"""

from __future__ import annotations

import io

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface_model, huggingface_vision
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof
from repo_builder.spec import ModelSpec
from repo_builder.tasks import (
    classification,
    described_images,
    image,
    image_settings,
    label_names,
    plain_tensors,
    sample_images,
)
from repo_builder.tasks.tolerances import tolerances

NAME = "image-classification"
SOURCES = frozenset({"huggingface"}) | plain_tensors.SOURCES


def check(model: ModelSpec, source: Artifact) -> None:
    """Refuse at the start what the spec asks for and this source cannot give; see :func:`described_images.check`."""
    sample_images.check(model)
    if not _tells(source):
        described_images.check(model, source)


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Of a folder scores as ``transformers.pipeline`` computes them, by the rules of text-classification, sorted."""
    if not _tells(source):
        return plain_tensors.head(source, model)
    settings = image_settings.read(huggingface_vision.processor(source))
    image.check_parameters(model, settings)
    shape = (3, *image_settings.one_size(settings))
    return classification.head(huggingface_vision.load(source, "AutoModelForImageClassification", shape))


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    if not _tells(source):
        return described_images.models(model, source, engine)
    settings = image_settings.read(huggingface_vision.processor(source))
    return image.image_ensemble(
        model, engine, settings, classification.OUTPUTS, labels={classification.LOGITS: label_names.read(source)}
    )


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each image alone through ``transformers.pipeline`` with all labels and the folder's Pillow image processor, or
    through the source itself (:func:`described_images.proof`)."""
    if not _tells(source):
        return described_images.proof(model, source, engine, program)
    import PIL
    import torch
    import transformers
    from PIL import Image

    classify = huggingface_model.pipeline(NAME, source)
    classify.image_processor = huggingface_vision.processor(source)
    cases = []
    for raw in sample_images.chosen(model):
        ran = classify.forward(classify.preprocess(Image.open(io.BytesIO(raw))))
        found = classify.postprocess(ran, top_k=classify.model.config.num_labels)
        request = {image.IMAGE: np.array([[raw]], dtype=object)}
        cases.append(Case(request, classification.answers(found, ran["logits"].numpy())))
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}) with Pillow {PIL.__version__}"
    reference = f"{versions} on torch {torch.__version__}, each image alone"
    allowed = tolerances(model, classification.TOLERANCES)
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference, classification.RANKED)


def _tells(source: Artifact) -> bool:
    """Whether the source itself tells its preprocessing."""
    return source.format == "huggingface"
