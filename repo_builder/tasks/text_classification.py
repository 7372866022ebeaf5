"""Task ``text-classification``: text in, labels and scores out, best first; the graph scores and sorts."""

from __future__ import annotations

from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples, text, tokenizer
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
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    function = scoring(config)

    class Classification(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = program.module

        def forward(self, *inputs: Any) -> Any:
            logits = self.classifier(*inputs)[0]
            scores = {"sigmoid": torch.sigmoid, "softmax": lambda x: torch.softmax(x, -1), "none": lambda x: x}[
                function
            ](logits)
            best, order = torch.topk(scores, len(names), dim=-1)
            return order, best, logits

    outputs = tuple(_OUTPUTS.values())
    tables = {"labels": tuple(names)}
    return TorchProgram(Classification().eval(), "eager", program.inputs, outputs, program.examples, tables)


def scoring(config: Any) -> str:
    """``sigmoid``, ``softmax`` or ``none``: TextClassificationPipeline.postprocess of transformers."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, _OUTPUTS)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``transformers.pipeline`` with all labels."""
    import torch
    import transformers

    folder = source.path / str(source.facts.get("transformer", ""))
    limit = tokenizer.settings(source.path, max_length=text.longest(model)).max_length
    with huggingface_model.quiet():
        classify = transformers.pipeline(NAME, model=str(folder), device="cpu", dtype=torch.float32)
    cases = []
    for row in samples.rows(model, tokenizer.TEXT_LAYOUT, lambda own: [{"TEXT": [t]} for t in own]):
        found = classify(row["TEXT"][0], top_k=None, truncation=limit is not None, max_length=limit)
        outputs = {
            LABELS: np.array([[one["label"].encode() for one in found]], dtype=object),
            SCORES: np.array([[one["score"] for one in found]], dtype=np.float32),
        }
        cases.append(Case(samples.request(row), outputs))
    allowed = tolerances(model, {LABELS: Tolerance(), SCORES: Tolerance(1e-4)})
    reference = (
        f"transformers {transformers.__version__} pipeline({NAME!r}) on torch {torch.__version__}, each text alone"
    )
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference)
