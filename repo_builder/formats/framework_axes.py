"""Names of free axes, found by running: which axes only go together, and which axis of an input an output follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from repo_builder.errors import SignatureError
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.signature import apply
from repo_builder.tensors import TensorSpec

Run = Callable[[Mapping[str, "np.ndarray[Any, Any]"]], "dict[str, np.ndarray[Any, Any]]"]
Specs = tuple[TensorSpec, ...]
SIZES = (3, 16, 32, 224)
"""Tried for all free axes but the first, until the model takes one; axis 0 gets 2."""


def named(inputs: Specs, outputs: Specs, run: Run) -> tuple[Specs, Specs]:
    """The same tensors. Axes at one place of several inputs that only take equal sizes bear one name, and an output's
    free axis the name of the input's axis that it follows; the rest stays as it is, and so does all of a model that
    takes none of the sizes.

    Args:
        run: the outputs by name; SignatureError where the model does not take the inputs.
    """
    base = next((sizes for sizes in _tries(inputs) if _shapes(inputs, sizes, run)), None)
    if not base:
        return inputs, outputs
    tied: dict[str, int | str] = {}
    for symbol in base:
        if symbol not in tied and not _grown(inputs, base, [symbol], run):
            group = _beside(inputs, symbol)
            if len(group) > 1 and _grown(inputs, base, group, run):
                tied.update(dict.fromkeys(group, f"dim{_axis(inputs, symbol)}"))
    inputs, outputs = (tuple(_with(spec, tied) for spec in side) for side in (inputs, outputs))
    base = {str(tied.get(symbol, symbol)): size for symbol, size in base.items()}
    return inputs, _following(inputs, outputs, base, run)


def _following(inputs: Specs, outputs: Specs, base: Mapping[str, int], run: Run) -> Specs:
    before = _shapes(inputs, base, run)
    assert before is not None
    found = [list(spec.shape) for spec in outputs]
    own = [[f"{s.name}_dim{a}" if isinstance(d, str) else d for a, d in enumerate(s.shape)] for s in outputs]
    for symbol in base:
        grown = _grown(inputs, base, [symbol], run)
        for place, spec in enumerate(outputs):
            for axis, dim in enumerate(spec.shape):
                if not grown or not isinstance(dim, str):
                    continue
                size, after = grown
                if (before[spec.name][axis], after[spec.name][axis]) == (base[symbol], size):
                    found[place][axis] = symbol
                elif found[place][axis] == symbol:  # said to follow, and does not
                    found[place][axis] = own[place][axis]
    return tuple(dataclasses.replace(s, shape=tuple(shape)) for s, shape in zip(outputs, found, strict=True))


def _tries(inputs: Specs) -> list[dict[str, int]]:
    symbols = dict.fromkeys(d for spec in inputs for d in spec.shape if isinstance(d, str))
    first = {spec.shape[0] for spec in inputs if spec.shape}
    return [{symbol: 2 if symbol in first else size for symbol in symbols} for size in SIZES] if symbols else []


def _shapes(inputs: Specs, sizes: Mapping[str, int], run: Run) -> dict[str, tuple[int, ...]] | None:
    try:
        return {name: array.shape for name, array in run(example_inputs(inputs, sizes)).items()}
    except SignatureError:
        return None


def _grown(
    inputs: Specs, base: Mapping[str, int], symbols: Sequence[str], run: Run
) -> tuple[int, dict[str, tuple[int, ...]]] | None:
    """The new size of ``symbols`` that the model takes, and the outputs' shapes there."""
    for size in (base[symbols[0]] + 1, base[symbols[0]] * 2):
        if shapes := _shapes(inputs, {**base, **dict.fromkeys(symbols, size)}, run):
            return size, shapes
    return None


def _axis(inputs: Specs, symbol: str) -> int:
    return next(axis for spec in inputs for axis, dim in enumerate(spec.shape) if dim == symbol)


def _beside(inputs: Specs, symbol: str) -> list[str]:
    axis = _axis(inputs, symbol)
    return list(
        dict.fromkeys(str(s.shape[axis]) for s in inputs if len(s.shape) > axis and isinstance(s.shape[axis], str))
    )


def _with(spec: TensorSpec, tied: Mapping[str, int | str]) -> TensorSpec:
    return dataclasses.replace(spec, shape=apply(spec.shape, tied))
