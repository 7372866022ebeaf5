"""Task ``text-classification``: text in, labels and scores out, best first; the graph scores and sorts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Ranking, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, label_names, samples, text, tokenizer
from repo_builder.tasks.tolerances import tolerances

NAME = "text-classification"
SOURCES = frozenset({"huggingface"})
LABELS, SCORES, LOGITS = "LABELS", "SCORES", "LOGITS"
_OUTPUTS = {LABELS: "labels", SCORES: "scores", LOGITS: "logits"}


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Scores as ``transformers.pipeline`` computes them: sigmoid for one label or ``multi_label_classification``,
    nothing for ``regression``, else softmax; sorted, best first, equal ones in the order of the labels."""
    program = huggingface.load(source, "AutoModelForSequenceClassification")
    import torch

    config = program.module.model.config
    names = label_names.names(config)
    functions = {"sigmoid": torch.sigmoid, "softmax": lambda x: torch.softmax(x, -1), "none": lambda x: x}
    score = functions[scoring(config)]

    class Classification(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = program.module

        def forward(self, *inputs: Any) -> Any:
            logits = self.classifier(*inputs)["logits"]
            best, order = torch.topk(score(logits), len(names), dim=-1)
            return order, best, logits

    return TorchProgram(
        Classification().eval(),
        "eager",
        program.inputs,
        tuple(_OUTPUTS.values()),
        program.examples,
        tables={"labels": names},
        ranked={"labels": "scores"},
    )


def scoring(config: Any) -> str:
    """``sigmoid``, ``softmax`` or ``none``: TextClassificationPipeline.postprocess of transformers.

    The pipeline reads ``function_to_apply`` of a config only where a model has no labels at all, so it counts for none.
    """
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, _OUTPUTS, settings=_settings(model, source))


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
        outputs = {
            LABELS: np.array([[str(one["label"]).encode() for one in found]], dtype=object),
            SCORES: np.array([[one["score"] for one in found]], dtype=np.float32),
            LOGITS: ran["logits"].numpy(),
        }
        cases.append(Case(samples.request(row), outputs))
    defaults = {LABELS: Tolerance(), SCORES: Tolerance(1e-4), LOGITS: Tolerance(max_rel_error=1e-4)}
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}) on torch {torch.__version__}"
    ranked = {LABELS: Ranking(SCORES, whole=True)}
    allowed = tolerances(model, defaults)
    return Proof(model.public_name, tuple(cases), True, allowed, {}, f"{versions}, each text alone", ranked)


def _settings(model: ModelSpec, source: Artifact) -> tokenizer.TokenizerSettings:
    """Without the prompt that sentence-transformers would put in front: the pipeline knows none."""
    return replace(tokenizer.settings(source.path, max_length=text.longest(model)), prompt="")
