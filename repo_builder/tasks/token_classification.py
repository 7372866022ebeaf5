"""Task ``token-classification``: text in, entities with words, scores and offsets out; softmax in the graph."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, nearest
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, label_names, postprocess, samples, text, tokenizer, tokenizer_source
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import dtype

NAME = "token-classification"
SOURCES = frozenset({"huggingface"})
STRATEGIES = ("none", "simple", "first", "average", "max")
DEFAULT_STRATEGY, DEFAULT_IGNORED = "simple", ["O"]
ENTITIES, WORDS, SCORES, STARTS, ENDS = "ENTITIES", "WORDS", "SCORES", "STARTS", "ENDS"
LOGITS, OFFSETS, MASK = "LOGITS", "OFFSETS", "ATTENTION_MASK"
_ENTITY: dict[str, tuple[str, str, Any]] = {
    ENTITIES: ("entity", "TYPE_STRING", object),
    WORDS: ("word", "TYPE_STRING", object),
    SCORES: ("score", "TYPE_FP32", np.float32),
    STARTS: ("start", "TYPE_INT32", np.int32),
    ENDS: ("end", "TYPE_INT32", np.int32),
}
"""Public name -> the pipeline's key, Triton's and numpy's dtype."""


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    program = huggingface.load(source, "AutoModelForTokenClassification")
    import torch

    strategy(model), ignored_labels(model)

    class TokenClassification(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = program.module

        def forward(self, *inputs: Any) -> Any:
            logits = self.classifier(*inputs)["logits"]
            return logits, torch.softmax(logits, -1)

    return TorchProgram(TokenClassification().eval(), "eager", program.inputs, ("logits", "scores"), program.examples)


def strategy(model: ModelSpec) -> str:
    """The aggregation strategy that the spec asks for, else ``simple``.

    Raises:
        SpecError: it is none of ``STRATEGIES``.
    """
    found = text.parameter(model, "postprocess", "aggregation_strategy") or DEFAULT_STRATEGY
    if found not in STRATEGIES:
        raise SpecError(
            f"step_configs: postprocess: aggregation_strategy is {found!r}{nearest(found, list(STRATEGIES))}",
            expected="one of " + ", ".join(STRATEGIES),
            mend="correct it in the spec",
        )
    return found


def ignored_labels(model: ModelSpec) -> list[str]:
    """Labels whose entities are left out: the spec's JSON list, else ``O``.

    Raises:
        SpecError: it is no list of texts.
    """
    asked = text.parameter(model, "postprocess", "ignore_labels") or json.dumps(DEFAULT_IGNORED)
    try:
        found = json.loads(asked)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise SpecError(
            f"step_configs: postprocess: ignore_labels is {asked!r}",
            expected='a JSON list of labels, for example \'["O", "MISC"]\'',
            mend="correct it in the spec",
        )
    return found


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    settings = _settings(model, source)
    unknown = tokenizer_source.source_tokenizer(source.path).unk_token_id
    labels = label_names.read(source)
    parameters = {
        "labels": json.dumps(labels, ensure_ascii=False),
        "aggregation_strategy": DEFAULT_STRATEGY,
        "ignore_labels": json.dumps(DEFAULT_IGNORED),
        **({"unk_id": str(unknown)} if unknown is not None else {}),
    }
    types = {spec.name: dtype(spec.dtype).config for spec in (*engine.inputs, *engine.outputs)}
    inputs = [
        *tokenizer.TEXT_LAYOUT.public(),
        {"name": "input_ids", "data_type": types["input_ids"], "dims": [-1]},
        {"name": "special_tokens_mask", "data_type": "TYPE_INT32", "dims": [-1]},
        {"name": "offsets", "data_type": "TYPE_INT32", "dims": [-1, 2]},
        {"name": "scores", "data_type": types["scores"], "dims": [-1, len(labels)]},
    ]
    outputs = [{"name": name, "data_type": kind, "dims": [-1]} for name, (_, kind, _) in _ENTITY.items()]
    return text.text_ensemble(
        model,
        source,
        engine,
        {LOGITS: "logits"},
        shown=(OFFSETS, MASK),
        extra=("special_tokens_mask", "offsets", "attention_mask"),
        settings=settings,
        postprocess=postprocess.planned(model, engine, "entities", settings, inputs, outputs, parameters),
    )


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    return replace(calibration.texts(model, source), settings=_settings(model, source))


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``transformers.pipeline``; one without a single token, which it refuses, is left out."""
    import torch
    import transformers
    from transformers.pipelines.token_classification import AggregationStrategy

    chosen, ignored = strategy(model), ignored_labels(model)
    classify = huggingface_model.pipeline(NAME, source)
    limit = _settings(model, source).max_length
    if limit is not None:
        classify.tokenizer.model_max_length = limit
    cases = []
    for row in samples.rows(model, tokenizer.TEXT_LAYOUT, lambda own: [{"TEXT": [t]} for t in own]):
        (parts,) = classify.preprocess(row["TEXT"][0], is_split_into_words=False)
        if not parts["input_ids"].numel():
            continue
        ran = classify.forward(parts)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tokenizer does not support real words")
            outputs = _padded(classify.postprocess([ran], AggregationStrategy(chosen), ignored))
        outputs |= {
            LOGITS: ran["logits"].numpy(),
            OFFSETS: ran["offset_mapping"].numpy().astype(np.int32),
            MASK: np.ones(ran["input_ids"].shape, np.int32),
        }
        cases.append(Case(samples.request(row), outputs))
    exact = dict.fromkeys((ENTITIES, WORDS, STARTS, ENDS, OFFSETS, MASK), Tolerance())
    allowed = tolerances(model, {**exact, SCORES: Tolerance(1e-4), LOGITS: Tolerance(max_rel_error=1e-4)})
    reference = (
        f"transformers {transformers.__version__} pipeline({NAME!r}, aggregation_strategy={chosen!r}) "
        f"on torch {torch.__version__}, each text alone"
    )
    masks = {**dict.fromkeys(_ENTITY, ENTITIES), LOGITS: MASK, OFFSETS: MASK, MASK: MASK}
    return Proof(model.public_name, tuple(cases), True, allowed, masks, reference)


def _settings(model: ModelSpec, source: Artifact) -> tokenizer.TokenizerSettings:
    """Padding goes to the right, whatever the source pads: no token's place, and so no position, depends on it."""
    found = tokenizer.settings(source.path, max_length=text.longest(model))
    return replace(found, padding_side="right", prompt="")


def _padded(entities: list[Mapping[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """What the pipeline found in one text, as the tensors of a batch of one."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, (key, _, kind) in _ENTITY.items():
        values = [one[key] if key in one else one["entity_group"] for one in entities]
        empty: Any = b"" if kind is object else 0
        array = np.full((1, max(1, len(values))), empty, dtype=kind)
        for place, value in enumerate(values):
            array[0, place] = value.encode() if isinstance(value, str) else value
        arrays[name] = array
    return arrays
