"""What classifiers of transformers share, of texts or of images: the scored and sorted labels, and their proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repo_builder.formats.torch_program import TorchProgram
from repo_builder.proof import Arrays, Ranking, Tolerance
from repo_builder.tasks import label_names

LABELS, SCORES, LOGITS = "LABELS", "SCORES", "LOGITS"
OUTPUTS = {LABELS: "labels", SCORES: "scores", LOGITS: "logits"}
TOLERANCES = {LABELS: Tolerance(), SCORES: Tolerance(1e-4), LOGITS: Tolerance(max_rel_error=1e-4)}
RANKED = {LABELS: Ranking(SCORES, whole=True)}


def head(program: TorchProgram) -> TorchProgram:
    """Scores as ``transformers.pipeline`` computes them: sigmoid for one label or ``multi_label_classification``,
    nothing for ``regression``, else softmax; sorted, best first, equal ones in the order of the labels."""
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
        tuple(OUTPUTS.values()),
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


def answers(found: Sequence[Mapping[str, Any]], logits: np.ndarray[Any, Any]) -> Arrays:
    """The outputs for one row: what a pipeline of transformers found, all labels, best first."""
    return {
        LABELS: np.array([[str(one["label"]).encode() for one in found]], dtype=object),
        SCORES: np.array([[one["score"] for one in found]], dtype=np.float32),
        LOGITS: logits,
    }
