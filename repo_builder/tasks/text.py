"""What text tasks share: the sample texts, and the ensemble of a tokenizer and an encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.model_config import apply_overrides, build
from repo_builder.planned import PlannedModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks import tokenizer
from repo_builder.tasks.engine_model import engine_model, tensor_fields

TEXT = "TEXT"


def samples(model: ModelSpec) -> list[str]:
    """The spec's texts, or the built-in 64.

    Raises:
        SpecError, SourceMissingError: the file of texts is not there or not what its suffix says.
    """
    asked = model.samples.texts
    if asked is None:
        return list(json.loads(Path(__file__).with_name("sample_texts.json").read_text(encoding="utf-8")))
    if not isinstance(asked, str):
        if not asked:
            raise SpecError("samples.texts is empty", expected="one text or more", mend="leave it out", stage="proof")
        return list(asked)
    path = Path(asked)
    if not path.is_file():
        raise SourceMissingError(f"the file of sample texts {path} does not exist", stage="proof")
    try:
        content = path.read_text(encoding="utf-8")
        texts = json.loads(content) if path.suffix == ".json" else content.splitlines()
    except ValueError as error:
        raise SpecError(f"{path} cannot be read ({error})", expected="UTF-8 text or JSON", stage="proof") from error
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise SpecError(f"{path} holds no list of texts", expected="a text a line, or a JSON list", stage="proof")
    return texts


def longest(model: ModelSpec) -> int | None:
    """The asked limit of tokens per text (``shapes: {sequence: {max: ...}}``); None leaves the source's own."""
    asked = model.shapes.get("sequence")
    return asked.max if asked else None


def text_input(text: str) -> dict[str, np.ndarray[Any, Any]]:
    """One request: TEXT, BYTES of shape [1, 1]."""
    return {TEXT: np.array([[text.encode("utf-8")]], dtype=object)}


def text_ensemble(
    model: ModelSpec, source: Artifact, engine: Artifact, outputs: Mapping[str, str], extra: Mapping[str, str]
) -> tuple[PlannedModel, ...]:
    """Ensemble, tokenizer and encoder.

    Args:
        outputs: public name -> name of the encoder's output.
        extra: public name -> name of the tokenizer's output that is handed out as well.
    """
    name = model.public_name
    encoder = engine_model(f"{name}_encoder", model, engine)
    size = encoder.config.max_batch_size
    settings = tokenizer.settings(source.path, max_length=longest(model))
    pieces = tokenizer.model(f"{name}_tokenizer", source.path, engine.inputs, settings, max_batch_size=size)
    tokens = {t.name: t.name for t in engine.inputs}
    tensors = {t.name: t for t in (*engine.inputs, *engine.outputs)}
    public = {**outputs, **extra}
    steps = [
        {
            "model_name": pieces.name,
            "model_version": -1,
            "input_map": {TEXT: TEXT},
            "output_map": {**tokens, **{inner: shown for shown, inner in extra.items()}},
        },
        {
            "model_name": encoder.name,
            "model_version": -1,
            "input_map": {n: extra_name(extra, n) for n in tokens},
            "output_map": {inner: shown for shown, inner in outputs.items()},
        },
    ]
    ensemble = build(
        {
            "name": name,
            "platform": "ensemble",
            "max_batch_size": size,
            "input": [{"name": TEXT, "data_type": "TYPE_STRING", "dims": [1]}],
            "output": [{**tensor_fields(tensors[inner], size), "name": shown} for shown, inner in public.items()],
            "ensemble_scheduling": {"step": steps},
        }
    )
    planned = {"ensemble": PlannedModel(ensemble), "tokenizer": pieces, "encoder": encoder}
    for step, overrides in model.step_configs.items():
        if step not in ("ensemble", "tokenizer"):
            raise SpecError(
                f"step_configs: there is no step {step!r}",
                expected="ensemble or tokenizer (`config:` is the encoder's)",
                mend="correct the name in the spec",
            )
        old = planned[step]
        planned[step] = PlannedModel(apply_overrides(old.config, overrides), old.version_files, old.model_files)
    return tuple(planned.values())


def extra_name(extra: Mapping[str, str], inner: str) -> str:
    """The ensemble's name of a tokenizer output: its public name where it is handed out, else its own."""
    return next((shown for shown, name in extra.items() if name == inner), inner)
