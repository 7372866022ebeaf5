"""Proving the batch dimension by running the model: rows of a batch must equal the same rows run alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import RepoBuilderError
from repo_builder.formats.examples import example_inputs
from repo_builder.tensors import TensorSpec

BATCHES = (2, 3)
OTHER_SIZES = (5, 32, 224)
"""Sizes tried for the other symbolic dims, the first that the model takes: none equals a batch, so that they differ."""

RELATIVE_TOLERANCE = {"FP16": 2e-2, "BF16": 5e-2}
DEFAULT_TOLERANCE = 1e-4
"""Largest difference of one value, relative to the output's largest magnitude; other kernels may run per batch size.
Integers, booleans and strings must be equal."""

Run = Callable[[Artifact, Mapping[str, "np.ndarray[Any, Any]"]], "dict[str, np.ndarray[Any, Any]]"]


def prove_batch(artifact: Artifact, run: Run) -> Artifact:
    """The artifact with ``batch`` set where axis 0 of every input and output is one batch dimension.

    It is, when axis 0 is symbolic everywhere, its name is no other axis of an input, and for batches of 2 and of 3
    every row of every output equals the output of that row run alone. Axis 0 then bears one name (that of the first
    input) in all tensors. Otherwise ``batch`` is None and ``facts["batch_refused"]`` says why, as it does where
    ``facts["unbatched"]`` says that the server makes no batches. The sizes of ``facts["sizes"]`` are used for symbolic
    dims where the format knows sizes that fit.
    """
    reason = str(artifact.facts.get("unbatched", "")) or _by_shape(artifact) or _by_running(artifact, run)
    if reason:
        return dataclasses.replace(artifact, batch=None, facts={**artifact.facts, "batch_refused": reason})
    name = str(artifact.inputs[0].shape[0])
    facts = {key: value for key, value in artifact.facts.items() if key != "batch_refused"}
    return dataclasses.replace(
        artifact, batch=name, inputs=_named(artifact.inputs, name), outputs=_named(artifact.outputs, name), facts=facts
    )


def _named(specs: tuple[TensorSpec, ...], batch: str) -> tuple[TensorSpec, ...]:
    return tuple(dataclasses.replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)


def _by_shape(artifact: Artifact) -> str:
    if not artifact.inputs or not artifact.outputs:
        return "inputs or outputs are unknown"
    for side, specs in (("input", artifact.inputs), ("output", artifact.outputs)):
        for spec in specs:
            if not spec.shape:
                return f"{side} '{spec.name}' is a scalar"
            if isinstance(spec.shape[0], int):
                return f"axis 0 of {side} '{spec.name}' is static ({spec.shape[0]})"
            if artifact.facts.get("sizes", {}).get(spec.shape[0]) == 0:
                return f"axis 0 of {side} '{spec.name}' is empty"
    first = {spec.shape[0] for spec in artifact.inputs}
    for spec in artifact.inputs:
        for axis, dim in enumerate(spec.shape[1:], 1):
            if dim in first:
                return f"'{dim}' is axis 0 and also axis {axis} of input '{spec.name}'"
    return ""


def _by_running(artifact: Artifact, run: Run) -> str:
    known = {str(k): int(v) for k, v in artifact.facts.get("sizes", {}).items()}
    others = {d for s in artifact.inputs for d in s.shape[1:] if isinstance(d, str)} - set(known)
    failures = ""
    for size in OTHER_SIZES if others else OTHER_SIZES[:1]:
        sizes = {**known, **dict.fromkeys(others, size)}
        try:
            return next(filter(None, (_rows_differ(artifact, run, sizes, batch) for batch in BATCHES)), "")
        except RepoBuilderError as error:
            failures = failures or f"running batches of 1, {BATCHES[0]} and {BATCHES[1]} failed: {error.found}"
    return failures


def _rows_differ(artifact: Artifact, run: Run, sizes: Mapping[str, int], batch: int) -> str:
    bound = {**sizes, **{str(spec.shape[0]): batch for spec in artifact.inputs}}
    inputs = example_inputs(artifact.inputs, bound, seed=batch)
    whole = run(artifact, inputs)
    for spec in artifact.outputs:
        shape = whole[spec.name].shape
        if not shape or shape[0] != batch:
            return f"output '{spec.name}' has the shape {list(shape)} for a batch of {batch}"
    for row in range(batch):
        alone = run(artifact, {name: array[row : row + 1] for name, array in inputs.items()})
        for spec in artifact.outputs:
            difference = _difference(whole[spec.name][row : row + 1], alone[spec.name], spec)
            if difference:
                return (
                    f"row {row} of output '{spec.name}' in a batch of {batch} differs from that row alone{difference}"
                )
    return ""


def _difference(rows: np.ndarray[Any, Any], alone: np.ndarray[Any, Any], spec: TensorSpec) -> str:
    if rows.shape != alone.shape:
        return f": shape {list(rows.shape)} against {list(alone.shape)}"
    if rows.dtype.kind != "f":
        return "" if np.array_equal(rows, alone) else " (values are not equal)"
    limit = RELATIVE_TOLERANCE.get(spec.dtype, DEFAULT_TOLERANCE)
    a, b = rows.astype(np.float64), alone.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    if not (same | finite).all():
        return ": infinite or NaN on one side alone"
    scale = np.abs(b[finite]).max(initial=0.0)
    error = np.abs(a - b, where=finite, out=np.zeros_like(a)).max(initial=0.0)
    return f" by {error:.3g} (limit {limit:g} of {scale:.3g})" if error > limit * scale else ""
