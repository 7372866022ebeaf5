"""Names that are served: a framework's own where they are legal, else made so, with their meaning kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from repo_builder.tensors import TensorSpec, dtype

_PREFIX, _PORT = "serving_default_", re.compile(r":\d+$")
_LONGEST = 120


def legal(name: str, otherwise: str) -> str:
    """``serving_default_x:0`` becomes ``x``, ``model/dense 1`` becomes ``model_dense_1``; ``otherwise`` where nothing
    is left."""
    bare = _PORT.sub("", name).removeprefix(_PREFIX)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", bare).strip("_.-")[:_LONGEST] or otherwise


def served(
    inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs, as a worker describes them, under legal names that are each there once.

    Raises:
        UnsupportedDtypeError: Triton lacks a dtype.
    """
    taken: set[str] = set()
    made = [
        [_spec(told, _once(legal(str(told["name"]), f"{side}_{place}"), taken)) for place, told in enumerate(tensors)]
        for side, tensors in (("input", inputs), ("output", outputs))
    ]
    return tuple(made[0]), tuple(made[1])


def _once(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _spec(told: Mapping[str, Any], name: str) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else legal(str(d), f"{name}_dim{a}") for a, d in enumerate(told["shape"]))
    return TensorSpec(name, dtype(str(told["dtype"])).triton, shape)
