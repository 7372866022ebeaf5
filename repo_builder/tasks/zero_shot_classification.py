"""Task ``zero-shot-classification``: a text and candidate labels in, a score for every label out, by entailment."""

from __future__ import annotations

from collections.abc import Iterator
from string import Formatter
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, samples, text, tokenizer
from repo_builder.tasks.tokenizer_source import source_tokenizer
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import TensorSpec

NAME = "zero-shot-classification"
SOURCES = frozenset({"huggingface"})
TEXT, CANDIDATE_LABELS = "TEXT", "CANDIDATE_LABELS"
SCORES, MULTI_LABEL_SCORES, LOGITS = "SCORES", "MULTI_LABEL_SCORES", "LOGITS"
AXES = ("batch", "labels", "sequence")
TEMPLATE = "This example is {}."
"""The default of ZeroShotClassificationPipeline."""
MAX_BATCH_SIZE = 8
"""Rows, each of several labels, in a request, where the spec does not say."""
_OUTPUTS = {SCORES: "scores", MULTI_LABEL_SCORES: "multi_label_scores", LOGITS: "logits"}


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Scores as ``ZeroShotClassificationPipeline.postprocess`` computes them, with and without ``multi_label``.

    Raises:
        UnknownTaskError: no label of the model begins with ``entail``, or it is the only one.
    """
    template(model)
    program = huggingface.load(source, "AutoModelForSequenceClassification")
    import torch

    entailment, contradiction = entailment_ids(program.module.model.config, source)

    class ZeroShot(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = program.module

        def forward(self, *inputs: Any) -> Any:
            batch, labels, _ = inputs[0].shape
            logits = self.classifier(*(tensor.flatten(0, 1) for tensor in inputs))["logits"]
            logits = logits.reshape(batch, labels, -1)
            entailed = logits[:, :, entailment]
            alone = torch.sigmoid(entailed - logits[:, :, contradiction])
            only = torch.ones_like(entailed).sum(-1, keepdim=True) == 1
            return torch.where(only, alone, torch.softmax(entailed, -1)), alone, logits

    inputs = tuple(TensorSpec(tensor.name, tensor.dtype, AXES) for tensor in program.inputs)
    arrays = example_inputs(inputs, dict(zip(AXES, (2, 3, 7), strict=True)))
    examples = tuple(torch.from_numpy(array) for array in arrays.values())
    return TorchProgram(ZeroShot().eval(), "eager", inputs, tuple(_OUTPUTS.values()), examples)


def entailment_ids(config: Any, source: Artifact) -> tuple[int, int]:
    """Where the model says "entailed", and what the pipeline weighs it against: the first label, or the last where
    the first is "entailed" itself."""
    found = [number for label, number in config.label2id.items() if label.lower().startswith("entail")]
    if not found or config.num_labels < 2:
        raise UnknownTaskError(
            f"the labels of {source.path.name} are {', '.join(map(str, config.label2id))}",
            expected="two or more, one of which begins with 'entail': a model trained on natural language inference",
            mend="name them in label2id and id2label of config.json, or take the task text-classification",
        )
    return found[0], config.num_labels - 1 if found[0] == 0 else 0


def template(model: ModelSpec) -> str:
    """The hypothesis, ``{}`` standing for a label: the tokenizer's parameter in ``step_configs``, or the default.

    Raises:
        SpecError: it has no place for the label, cannot be filled, or asks for a part of the label (``{0[0]}``), which
            an empty one does not have.
    """
    asked = text.parameter(model, "tokenizer", "hypothesis_template")
    if asked is None:
        return TEMPLATE
    why = ""
    try:
        places = {name for _, name, _, _ in Formatter().parse(asked) if name is not None}
        asked.format("label")
    except (IndexError, KeyError, ValueError, AttributeError) as error:
        places, why = set(), f" ({error!r})"
    if not places or places - {"", "0"}:
        raise SpecError(
            f"step_configs.tokenizer.parameters.hypothesis_template is {asked!r}{why}",
            expected="a text with {} where the label goes",
            mend=f"write it like {TEMPLATE!r}",
        )
    return asked


def layout(model: ModelSpec) -> tokenizer.Layout:
    """Pairs of the text, which alone is cut, and every label's hypothesis."""
    return tokenizer.Layout(
        "labels", {TEXT: 1, CANDIDATE_LABELS: -1}, "only_first", hypothesis_template=template(model)
    )


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    model = text.with_batch_size(model, MAX_BATCH_SIZE)
    return text.text_ensemble(model, source, engine, _OUTPUTS, layout=layout(model))


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    """Pairs of a text and each of its labels in the hypothesis."""
    settings, hypothesis = tokenizer.settings(source.path, max_length=text.longest(model)), template(model)
    rows = samples.rows(model, layout(model), lambda own: _rows(own, source, hypothesis, settings.max_length))
    return calibration.Asked(settings, layout(model), rows)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``transformers.pipeline``, asked once for each kind of scores."""
    import torch
    import transformers

    hypothesis = template(model)
    classify = huggingface_model.pipeline(NAME, source)
    limit = tokenizer.settings(source.path, max_length=text.longest(model)).max_length
    if limit is not None:
        classify.tokenizer.model_max_length = limit
    cases = []
    for number, row in enumerate(samples.rows(model, layout(model), lambda own: _rows(own, source, hypothesis, limit))):
        if not row[TEXT][0]:
            raise SpecError(
                f"samples.texts[{number}] has an empty {TEXT}",
                expected="a text, as the pipeline refuses empty ones",
                mend="correct the sample, or leave samples out",
                stage="proof",
            )
        labels = list(row[CANDIDATE_LABELS])
        outputs = {}
        for name, several in ((SCORES, False), (MULTI_LABEL_SCORES, True)):
            [found] = classify(
                [row[TEXT][0]], candidate_labels=labels, hypothesis_template=hypothesis, multi_label=several
            )
            scores = _in_order(labels, found)
            outputs[name] = np.array([scores], dtype=np.float32)
        cases.append(Case(samples.request(row), outputs))
    allowed = tolerances(model, {SCORES: Tolerance(1e-4), MULTI_LABEL_SCORES: Tolerance(1e-4)})
    reference = (
        f"transformers {transformers.__version__} pipeline({NAME!r}) on torch {torch.__version__}, each text alone"
    )
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference)


def _in_order(labels: list[str], found: dict[str, Any]) -> list[float]:
    """The pipeline's scores, which come best first, in the order of the labels; equal labels have equal scores."""
    by_label = dict(zip(found["labels"], found["scores"], strict=True))
    return [by_label[label] for label in labels]


def _rows(own: list[str], source: Artifact, hypothesis: str, limit: int | None) -> Iterator[samples.Row]:
    """Every text that is not empty, which the pipeline refuses, with labels made of the first characters of others: one
    to five, in all scripts, none longer than leaves half of the model's length to the text."""
    encode = source_tokenizer(source.path)
    room = ((limit or 512) - encode.num_special_tokens_to_add(pair=True)) // 2
    words = [one.strip()[:16] for one in own if one.strip()]
    for number in range(len(words)):
        while len(encode.tokenize(hypothesis.format(words[number]))) > room and len(words[number]) > 1:
            words[number] = words[number][: len(words[number]) * 3 // 4]
    for number, one in enumerate(one for one in own if one):
        count = (3, 2, 5, 1)[number % 4]
        yield {TEXT: [one], CANDIDATE_LABELS: [words[(5 * number + 11 * k) % len(words)] for k in range(count)]}
