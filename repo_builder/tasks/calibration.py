"""What an engine is asked while it is built: its own input tensors for the samples of the spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.proof import Arrays
from repo_builder.spec import ModelSpec
from repo_builder.tasks import engine_model, plain_tensors, plan_cases, plan_model, samples, text, tokenizer
from repo_builder.tasks.tokenizer_source import source_tokenizer

LONGEST = 512
"""Tokens of a text where neither the spec nor the tokenizer limits them."""
_TOGETHER = 4
"""Texts or pairs of a case, padded together: a few rows, so that a mask is seen at work."""


@dataclass(frozen=True)
class Asked:
    """What the served model of a task is asked, and how its tokenizer makes tokens of it.

    Attributes:
        settings, layout: of the task's tokenizer.
        rows: the requests of its proof.
    """

    settings: tokenizer.TokenizerSettings
    layout: tokenizer.Layout
    rows: Sequence[samples.Row]


def texts(model: ModelSpec, source: Artifact) -> Asked:
    """Single texts, as most tasks are asked; a task that is asked otherwise has an ``asked`` of its own."""
    settings = tokenizer.settings(source.path, max_length=text.longest(model))
    rows = samples.rows(model, tokenizer.TEXT_LAYOUT, lambda own: [{"TEXT": [one]} for one in own])
    return Asked(settings, tokenizer.TEXT_LAYOUT, rows)


def requests(model: ModelSpec, source: Artifact, engine: Artifact, task: Any = None) -> Sequence[Arrays]:
    """Inputs of ``engine``: tokens of what its task is asked, the samples' arrays, or seeded random tensors.

    Where ``engine`` has profiles (``facts``), all of them are of sizes that these take: rows shorter than the shortest
    are padded, as the served tokenizer does, and what they do not take (more windows, say) is left out.

    Args:
        task: the module of the task; single texts without.
    """
    if source.format != "huggingface" or not all(t.name in tokenizer.OUTPUTS for t in engine.inputs):
        return plain_tensors.requests(model, engine)
    asked = (getattr(task, "asked", None) or texts)(model, source)
    if any(len(t.shape) != len(asked.layout.axes) for t in engine.inputs):
        return plain_tensors.requests(model, engine)
    together = min(_TOGETHER, engine_model.max_batch_size(model, engine) or 1) if len(asked.layout.axes) == 2 else 1
    cases = []
    for start in range(0, len(asked.rows), together):
        encoded = encode(asked, source, asked.rows[start : start + together], shortest=plan_model.shortest(engine))
        arrays = {t.name: encoded[t.name].astype(t.numpy) for t in engine.inputs}
        if encoded["attention_mask"].any(axis=-1).all() and not plan_cases.outside(engine, arrays):
            cases.append(arrays)
    return cases


def longest(model: ModelSpec, source: Artifact) -> int:
    """Most tokens of a text that the engine has to take."""
    return tokenizer.settings(source.path, max_length=text.longest(model)).max_length or LONGEST


def encode(
    asked: Asked, source: Artifact, rows: Sequence[samples.Row], *, shortest: int = 1
) -> dict[str, np.ndarray[Any, Any]]:
    """Rows as the served tokenizer encodes them, by the source's own library: int64 [rows, tokens], padded together, or
    [rows, sequences, tokens]; a row with fewer sequences than another has some that are all padding.

    Args:
        shortest: tokens of a row at least.
    """
    settings, layout = asked.settings, asked.layout
    sequences = [_sequences(layout, settings, row) for row in rows]
    flat = [one for several in sequences for one in several]
    found = source_tokenizer(source.path)(
        [first for first, _ in flat],
        None if layout.kind == "text" else [second for _, second in flat],
        truncation=layout.truncation if settings.max_length is not None else False,
        max_length=settings.max_length,
        stride=layout.stride,
        return_overflowing_tokens=layout.kind == "windows",
        return_token_type_ids=True,
        return_attention_mask=True,
    )
    owners = [number for number, several in enumerate(sequences) for _ in several]
    if layout.kind == "windows":
        owners = [owners[number] for number in found["overflow_to_sample_mapping"]]
    width = max(shortest, *map(len, found["input_ids"]))
    fill = {"input_ids": settings.pad_id, "attention_mask": 0, "token_type_ids": settings.pad_type_id}
    shape = (len(rows), max(owners.count(row) for row in set(owners)), width)
    arrays = {name: np.full(shape, fill[name], dtype=np.int64) for name in tokenizer.OUTPUTS}
    places = [owners[:number].count(owner) for number, owner in enumerate(owners)]
    for number, at in enumerate(zip(owners, places, strict=True)):
        length = len(found["input_ids"][number])
        span = slice(width - length, width) if settings.padding_side == "left" else slice(0, length)
        for name, array in arrays.items():
            array[at][span] = found[name][number]
    return arrays if len(layout.axes) == 3 else {name: array[:, 0] for name, array in arrays.items()}


def _sequences(
    layout: tokenizer.Layout, settings: tokenizer.TokenizerSettings, row: samples.Row
) -> list[tuple[str, str]]:
    """The texts or pairs that a row is made of; see ``templates/tokenizer/model.py``."""
    first, *others = row.values()
    if layout.kind == "text":
        return [(settings.prompt + one, "") for one in first]
    if layout.kind == "pairs":
        return [(settings.prompt + first[0], first[1])]
    if layout.kind == "windows":
        pair = (first[0], others[0][0])
        return [pair[::-1] if layout.truncation == "only_first" else pair]
    return [(first[0], layout.hypothesis_template.format(label)) for label in others[0]]
