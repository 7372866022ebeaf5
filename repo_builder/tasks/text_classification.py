"""Task ``text-classification``: text in, labels and scores out, best first; the graph scores and sorts."""

from __future__ import annotations

from dataclasses import replace

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, classification, samples, text, tokenizer
from repo_builder.tasks.tolerances import tolerances

NAME = "text-classification"
SOURCES = frozenset({"huggingface"})


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    return classification.head(huggingface.load(source, "AutoModelForSequenceClassification"))


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, classification.OUTPUTS, settings=_settings(model, source))


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    return replace(calibration.texts(model, source), settings=_settings(model, source))


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``transformers.pipeline`` with all labels.

    Left out are texts without a single token, which the pipeline refuses.
    """
    import torch
    import transformers

    limit = _settings(model, source).max_length
    classify = huggingface_model.pipeline(NAME, source)
    cases = []
    for row in samples.rows(model, tokenizer.TEXT_LAYOUT, lambda own: [{"TEXT": [t]} for t in own]):
        parts = classify.preprocess(row["TEXT"][0], truncation=limit is not None, max_length=limit)
        if not parts["input_ids"].numel():
            continue
        ran = classify.forward(parts)
        found = classify.postprocess(ran, top_k=None, _legacy=False)
        cases.append(Case(samples.request(row), classification.answers(found, ran["logits"].numpy())))
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}) on torch {torch.__version__}"
    allowed = tolerances(model, classification.TOLERANCES)
    reference = f"{versions}, each text alone"
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference, classification.RANKED)


def _settings(model: ModelSpec, source: Artifact) -> tokenizer.TokenizerSettings:
    """Without the prompt that sentence-transformers would put in front: the pipeline knows none."""
    return replace(tokenizer.settings(source.path, max_length=text.longest(model)), prompt="")
