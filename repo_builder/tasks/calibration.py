"""What an engine is asked while it is built: its own input tensors for the samples of the spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.proof import Arrays
from repo_builder.spec import ModelSpec
from repo_builder.tasks import plain_tensors, samples, text, tokenizer

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
    texts = samples.texts(model) if _plain(own) else samples.built_in()
    cases = []
    for start in range(0, len(texts), _TOGETHER):
        encoded = tokenizer.encode(settings, source.path, texts[start : start + _TOGETHER])
        if encoded["attention_mask"].any(axis=1).all():
            cases.append({t.name: encoded[t.name].astype(t.numpy) for t in engine.inputs})
    return cases


def longest(model: ModelSpec, source: Artifact) -> int:
    """Most tokens of a text that the engine has to take."""
    return tokenizer.settings(source.path, max_length=text.longest(model)).max_length or LONGEST


def _plain(own: Any) -> bool:
    """Whether the spec's samples are texts, and no mappings of several inputs."""
    return own is not None and not isinstance(own, str) and all(isinstance(one, str) for one in own)
