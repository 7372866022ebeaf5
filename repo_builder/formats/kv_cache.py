"""The cache of keys and values among a model's tensors: which axes follow from others, and one name for its layers.

Names as Hugging Face's exports have them (huggingface/optimum, ``past_key_values.0.key``, ``present.0.key``,
``attention_mask`` over past and new tokens).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from repo_builder.tensors import Shape, TensorSpec

IDS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
_PAST = re.compile(r"past[a-z_]*[._]?\d+")
_LAYER = re.compile(r"((?:past|present)\D*)(\d+)(.*)")
_DEFAULT_SIZE = 3


def past_axes(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Symbolic dims of the tokens in the cache, which may be 0; none where the inputs are not ids and a cache."""
    ids = next((spec for spec in specs if spec.name == IDS and len(spec.shape) == 2), None)
    if ids is None:
        return ()
    caches = [spec for spec in specs if _PAST.match(spec.name) and len(spec.shape) >= 4]
    return tuple(dict.fromkeys(d for s in caches for d in s.shape[1:] if isinstance(d, str) and d not in ids.shape))


def sums(specs: Sequence[TensorSpec]) -> dict[str, tuple[int | str, ...]]:
    """Symbolic dims that are the sum of others: the mask's, past and new tokens; and each further name for the past."""
    past = past_axes(specs)
    if not past:
        return {}
    shapes = {spec.name: spec.shape for spec in specs}
    found: dict[str, tuple[int | str, ...]] = dict.fromkeys(past[1:], (past[0],))
    tokens = shapes[IDS][1]
    known = {*past, *shapes[IDS]}
    for name, terms in ((MASK, (past[0], tokens)), (POSITIONS, (tokens,))):
        shape: Shape = shapes.get(name, ())
        if len(shape) == 2 and isinstance(shape[1], str) and shape[1] not in known:
            found[shape[1]] = terms
    return found


def fitted(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> dict[str, int]:
    """``sizes`` with every dim of :func:`sums` made to fit."""
    made = dict(sizes)
    for name, terms in sums(specs).items():
        made[name] = sum(term if isinstance(term, int) else made.get(term, _DEFAULT_SIZE) for term in terms)
    return made


def grouped(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors with those of a cache told once: ``past_key_values.0..11.key/value``.

    Told once are those of one dtype and shape that every layer has, of layers that are numbered without a gap.
    """
    families: dict[object, dict[int, list[str]]] = {}
    for spec in specs:
        if found := _LAYER.fullmatch(spec.name):
            families.setdefault(_family(spec, found[1]), {}).setdefault(int(found[2]), []).append(found[3])
    told: dict[object, TensorSpec] = {}
    for spec in specs:
        found = _LAYER.fullmatch(spec.name)
        family = _family(spec, found[1]) if found else ()
        layers = families.get(family, {})
        numbers, ends = list(layers), next(iter(layers.values()), [])
        gapless = numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False
        if not found or len(numbers) < 2 or not gapless or any(own != ends for own in layers.values()):
            told[spec.name] = spec
            continue
        name = f"{found[1]}{numbers[0]}..{numbers[-1]}{ends[0]}"
        name = "/".join((name, *(end.lstrip("._") for end in ends[1:])))
        told.setdefault(family, replace(spec, name=name))
    return tuple(told.values())


def _family(spec: TensorSpec, prefix: str) -> tuple[object, ...]:
    """Unnamed dims bear their tensor's name: of all layers they are one."""
    free = tuple(d.removeprefix(spec.name) if isinstance(d, str) else d for d in spec.shape)
    return prefix, spec.dtype, free
