"""Task ``image-classification``: encoded images in, labels and scores out, best first; the graph scores and sorts."""

from __future__ import annotations

import io

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.formats import huggingface_model, huggingface_vision
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof
from repo_builder.spec import ModelSpec
from repo_builder.tasks import classification, image, image_settings, label_names, sample_images
from repo_builder.tasks.tolerances import tolerances

NAME = "image-classification"
SOURCES = frozenset({"huggingface"})


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Scores as ``transformers.pipeline`` computes them, by the rules of text-classification; sorted, best first."""
    return classification.head(huggingface_vision.load(source, "AutoModelForImageClassification", (3, *_shape(source))))


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    settings = image_settings.read(huggingface_vision.processor(source))
    return image.image_ensemble(
        model, engine, settings, classification.OUTPUTS, labels={classification.LOGITS: label_names.read(source)}
    )


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each image alone through ``transformers.pipeline`` with all labels and the folder's Pillow image processor.

    Raises:
        SpecError: the spec names samples, which this task does not read.
    """
    import PIL
    import torch
    import transformers
    from PIL import Image

    if model.samples.texts is not None or model.samples.arrays:
        raise SpecError(
            "samples: names texts or arrays, which image-classification does not read",
            expected="no samples: the proof makes its images",
            mend="leave it out",
            stage="proof",
        )
    classify = huggingface_model.pipeline(NAME, source)
    classify.image_processor = huggingface_vision.processor(source)
    cases = []
    for raw in sample_images.built_in():
        ran = classify.forward(classify.preprocess(Image.open(io.BytesIO(raw))))
        found = classify.postprocess(ran, top_k=classify.model.config.num_labels)
        request = {image.IMAGE: np.array([[raw]], dtype=object)}
        cases.append(Case(request, classification.answers(found, ran["logits"].numpy())))
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}) with Pillow {PIL.__version__}"
    reference = f"{versions} on torch {torch.__version__}, each image alone"
    allowed = tolerances(model, classification.TOLERANCES)
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference, classification.RANKED)


def _shape(source: Artifact) -> tuple[int, int]:
    settings = image_settings.read(huggingface_vision.processor(source))
    if settings.shape is None:
        raise UnknownTaskError(
            "preprocessor_config.json gives every image a size of its own",
            expected="size with height and width, or a crop_size: images of one size make a batch",
            mend="set do_center_crop and crop_size in preprocessor_config.json",
        )
    return settings.shape
