"""Example inputs for a signature: seeded, small, and valid for most models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from repo_builder.errors import SignatureError
from repo_builder.formats import kv_cache
from repo_builder.tensors import TensorSpec

_ELEMENT_LIMIT = 1 << 28
_DEFAULT_SIZE = 3
SIZES = (3, 16, 32, 224)
"""Tried for symbolic dims beyond axis 0 where nobody says which fit; axis 0 gets 2."""


def example_inputs(
    specs: Sequence[TensorSpec],
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    ranges: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """One array per input, in the order of ``specs``.

    Floats are normal with standard deviation 1; INT8 and UINT8, which are mostly quantised, take all their values;
    other integers are 0 or 1; strings are ``"0"`` or ``"1"`` as bytes; booleans and inputs whose name ends with
    ``mask`` are all true or one.

    Args:
        specs: the inputs.
        sizes: size of each symbolic dim; 3 for one that is not named. Dims of a cache that follow from others get
            what fits those (:func:`~repo_builder.formats.kv_cache.sums`).
        seed: the same seed and specs give the same arrays.
        ranges: the lowest and the highest value of an integer input, where they are known; both are among its values.

    Raises:
        SignatureError: an input would have more than 2**28 elements.
        UnsupportedDtypeError: a BF16 input, which numpy cannot hold.
    """
    random = np.random.default_rng(seed)
    sizes = kv_cache.fitted(specs, sizes or {})
    return {spec.name: _array(spec, sizes, random, (ranges or {}).get(spec.name)) for spec in specs}


def working_sizes(
    specs: Sequence[TensorSpec], attempt: Callable[[dict[str, int]], object], tried: Sequence[int] = SIZES
) -> dict[str, int]:
    """Sizes of the symbolic dims that a model takes, the first that do.

    Args:
        attempt: runs the model with these sizes; raises SignatureError where it does not take them.

    Raises:
        SignatureError: it takes none; the model's own error for the first sizes.
    """
    first = {spec.shape[0] for spec in specs if spec.shape}
    dims = dict.fromkeys(d for spec in specs for d in spec.shape if isinstance(d, str))
    failure: SignatureError | None = None
    for size in tried if dims.keys() - first else tried[:1]:
        sizes = {d: 2 if d in first else size for d in dims}
        try:
            attempt(sizes)
        except SignatureError as error:
            failure = failure or error
        else:
            return sizes
    assert failure is not None
    raise failure


def working_inputs(
    specs: Sequence[TensorSpec],
    run: Callable[[dict[str, np.ndarray[Any, Any]]], object],
    ranges: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """:func:`example_inputs` of :func:`working_sizes`."""

    def made(sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        return example_inputs(specs, sizes, ranges=ranges)

    return made(working_sizes(specs, lambda sizes: run(made(sizes))))


def _array(
    spec: TensorSpec, sizes: Mapping[str, int], random: np.random.Generator, limits: Sequence[int] | None
) -> np.ndarray[Any, Any]:
    shape = tuple(d if isinstance(d, int) else sizes.get(d, _DEFAULT_SIZE) for d in spec.shape)
    if prod(shape) > _ELEMENT_LIMIT:
        raise SignatureError(
            f"an example of input {spec} would have {prod(shape)} elements",
            expected=f"at most {_ELEMENT_LIMIT}",
            mend="give the symbolic dims smaller sizes, or samples of your own",
        )
    if spec.dtype == "BYTES":
        return np.asarray(random.integers(0, 2, shape)).astype("S1").astype(object)
    if spec.dtype == "BOOL" or spec.name.lower().endswith("mask"):
        return np.ones(shape, dtype=spec.numpy)
    if spec.dtype.startswith("FP"):
        return np.asarray(random.standard_normal(shape), dtype=spec.numpy)
    if limits is None:
        kind = np.iinfo(spec.numpy)
        limits = (kind.min, kind.max) if kind.bits == 8 else (0, 1)
    low, high = int(limits[0]), int(limits[1])
    made = np.asarray(random.integers(low, high, shape, endpoint=True), dtype=spec.numpy)
    if (low, high) != (0, 1) and made.size:
        made.reshape(-1)[[0, -1]] = low, high
    return made
