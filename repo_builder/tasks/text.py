"""What text tasks share: the ensemble of a tokenizer and an engine, and what answers are read by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.model_config import apply_overrides
from repo_builder.planned import PlannedModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks import plan_model, string_lookup, tokenizer
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.ensemble import Step, ensemble

CPUS_PER_TOKENIZER = 8
"""A tokenizer process takes 0.25 to 0.5 ms per short text, an encoder like MiniLM 4 ms and more of one core."""


def longest(model: ModelSpec) -> int | None:
    """The asked limit of tokens per text (``shapes: {sequence: {max: ...}}``, or a plan's profiles); None leaves the
    source's own."""
    asked = model.shapes.get("sequence")
    buckets = [bucket["sequence"].max for bucket in model.tensorrt.profiles if "sequence" in bucket]
    return asked.max if asked else max(buckets, default=None)


def with_batch_size(model: ModelSpec, size: int) -> ModelSpec:
    """The model with ``max_batch_size: size`` where the spec says nothing, for rows of several sequences."""
    if model.batching.max_batch_size is not None or "batch" in model.shapes:
        return model
    return model.model_copy(update={"batching": model.batching.model_copy(update={"max_batch_size": size})})


def parameter(model: ModelSpec, step: str, key: str) -> str | None:
    """A config parameter of a step as the spec's ``step_configs`` has it; None where it does not say."""
    parameters = model.step_configs.get(step, {}).get("parameters")
    value = parameters.get(key) if isinstance(parameters, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("string_value")
    return None if value is None else str(value)


def text_ensemble(
    model: ModelSpec,
    source: Artifact,
    engine: Artifact,
    outputs: Mapping[str, str],
    *,
    shown: Sequence[str] = (),
    layout: tokenizer.Layout = tokenizer.TEXT_LAYOUT,
    extra: Sequence[str] = (),
    settings: tokenizer.TokenizerSettings | None = None,
    postprocess: PlannedModel | None = None,
) -> tuple[PlannedModel, ...]:
    """The ensemble, its tokenizer, its engine, and the models that read the engine's answers where there are such: one
    that makes text of a plan's indices, one that makes answers of its numbers.

    Args:
        outputs: public name -> name of the engine's output.
        shown: tokenizer's outputs that are handed out as well, in upper case.
        layout: the public inputs.
        extra: outputs of the tokenizer beyond the engine's inputs (``tokenizer.EXTRA``).
        settings: the tokenizer's; read from the source where they are not given.
        postprocess: reads public inputs, outputs of tokenizer and engine, all by their own names; all that it gives
            is public.
    """
    name = model.public_name
    encoder = engine_model(f"{name}_encoder", model, engine)
    size = encoder.config.max_batch_size
    settings = settings or tokenizer.settings(source.path, max_length=longest(model))
    if (shortest := plan_model.shortest(engine)) > 1 and not settings.pad_lengths:
        settings = replace(settings, pad_lengths=(shortest,))
    pieces = tokenizer.model(
        f"{name}_tokenizer",
        source.path,
        engine.inputs,
        settings,
        max_batch_size=size,
        instances=max(1, (model.cpus or 1) // CPUS_PER_TOKENIZER),
        layout=layout,
        extra=[*extra, *shown],
    )
    named = {inner: public for public, inner in outputs.items()}
    answers = [tensor.name for tensor in postprocess.config.output] if postprocess else []
    strings = string_lookup.planned(f"{name}_strings", engine, size)
    steps = [Step(pieces, named), Step(encoder, {**named, **string_lookup.indices(engine)})]
    steps += [Step(each, named) for each in (strings, postprocess) if each]
    whole = ensemble(name, layout.public(), steps, [*answers, *outputs, *shown], size)
    planned = {"ensemble": whole, "tokenizer": pieces, "encoder": encoder}
    if strings:
        planned["strings"] = strings
    if postprocess:
        planned["postprocess"] = postprocess
    unmerged = {} if model.batching.dynamic else {"dynamic_batching": None}
    for step in ("tokenizer", "strings", "postprocess"):
        if step in planned:
            planned[step] = overridden(planned[step], unmerged)
    for step, fields in model.step_configs.items():
        planned[step] = overridden(planned[step], fields)
    return tuple(planned.values())


def overridden(planned: PlannedModel, fields: Mapping[str, Any]) -> PlannedModel:
    """The model with fields of its config laid over, by the rules of :mod:`repo_builder.model_config`."""
    return PlannedModel(apply_overrides(planned.config, fields), planned.version_files, planned.model_files)
