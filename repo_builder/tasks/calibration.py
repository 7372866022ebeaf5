"""What an engine is asked while it is built: its own input tensors for the samples of the spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.proof import Arrays
from repo_builder.spec import ModelSpec
from repo_builder.tasks import engine_model, plain_tensors, samples, text, tokenizer

LONGEST = 512
"""Tokens of a text where neither the spec nor the tokenizer limits them."""
_TOGETHER = 4
"""Texts of a case, padded together: a few rows, so that a mask is seen at work."""


def requests(model: ModelSpec, source: Artifact, engine: Artifact) -> Sequence[Arrays]:
    """Inputs of ``engine``: tokens of the sample texts, the samples' arrays, or seeded random tensors without either.

    Engines that take windows of a context or pairs with labels ([batch, windows, sequence]) get random tensors.
    """
    tokens = all(t.name in tokenizer.OUTPUTS and len(t.shape) == 2 for t in engine.inputs)
    if source.format != "huggingface" or not tokens:
        return plain_tensors.requests(model, engine)
    settings = tokenizer.settings(source.path, max_length=longest(model, source))
    own = model.samples.texts
    texts = samples.texts(model) if own is not None and _of_texts(own) else samples.built_in()
    rows = min(_TOGETHER, engine_model.max_batch_size(model, engine) or 1)
    cases = []
    for start in range(0, len(texts), rows):
        encoded = tokenizer.encode(settings, source.path, texts[start : start + rows])
        if encoded["attention_mask"].any(axis=1).all():
            cases.append({t.name: encoded[t.name].astype(t.numpy) for t in engine.inputs})
    return cases


def longest(model: ModelSpec, source: Artifact) -> int:
    """Most tokens of a text that the engine has to take."""
    return tokenizer.settings(source.path, max_length=text.longest(model)).max_length or LONGEST


def _of_texts(own: Any) -> bool:
    """Whether the spec's samples are texts, or mappings to TEXT, or a file; those of pairs and questions are not."""
    return isinstance(own, str) or all(isinstance(one, str) or list(one) == ["TEXT"] for one in own)
