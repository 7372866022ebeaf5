"""Optimization profiles of a TensorRT plan: the spec's ranges of named axes as complete shapes of every input.

Triton's tensorrt backend gives one execution context per profile to each instance and takes, for every batch, one that
holds its shapes; a batch that none holds fails in the server (tensorrt_backend, instance_state.cc,
GetMostOptimizedProfile). The dynamic batcher fills batches up to ``max_batch_size`` with requests of any shape, so the
profiles together must hold every size of every axis with every other: they may overlap, gaps are refused. Where several
hold a batch, the backend measures from their optima, the sequence's against the number of rows (as of release 26.06):
only buckets that do not overlap leave no choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from repo_builder.errors import SignatureError, SpecError, nearest
from repo_builder.spec import AxisRange
from repo_builder.tensors import TensorSpec

Ranges = Mapping[str, AxisRange]
_KINDS = ("min", "opt", "max")


def profiles(
    inputs: Sequence[TensorSpec],
    ranges: Ranges,
    buckets: Sequence[Ranges],
    max_batch_size: int,
    batch_axis: str | None,
    defaults: Ranges | None = None,
    shape_tensors: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The profiles to build with: one, or one for every bucket; none where every size is static.

    Args:
        inputs: of the ONNX file, dynamic axes as names.
        ranges: the spec's ``shapes``; for the values of a shape tensor under its name, or one by one (``name[0]``).
        buckets: the spec's ``tensorrt.profiles``, each laid over ``ranges``.
        max_batch_size: of the ModelConfig; 0 without batching.
        batch_axis: the axis that batches grow along. Without a range it is 1 to ``max_batch_size``, optimized for
            ``max_batch_size``: the size that a busy server's batches have.
        defaults: ranges known otherwise (``sequence`` from a tokenizer's maximum length), where the spec has none.
        shape_tensors: inputs whose values decide shapes.

    Returns:
        By input name ``{"min": [...], "opt": [...], "max": [...]}``, sizes of all axes; the values of shape tensors
        likewise under ``"values"``. Inputs of static shape are left out.

    Raises:
        SpecError: an axis without a range, an unknown axis, or ranges that contradict each other or leave gaps.
        SignatureError: a shape tensor whose length is not fixed.
    """
    axes = _axes(inputs, shape_tensors)
    _check_known(axes, inputs, ranges, buckets)
    if not axes:
        return []
    known = dict(defaults or {})
    if max_batch_size and batch_axis:
        known[batch_axis] = AxisRange(min=1, opt=max_batch_size, max=max_batch_size)
    known |= ranges
    made = [_resolved(axes, _each(axes, known) | _each(axes, bucket)) for bucket in buckets or ({},)]
    for (one, first), (other, second) in itertools.combinations(enumerate(made), 2):
        if first == second:
            raise SpecError(
                f"tensorrt.profiles: profiles {one} and {other} are the same ({_shown(first)})",
                expected="profiles that differ",
                mend="leave one of them out",
            )
    asked = _each(axes, ranges)
    _check_inside(made, asked)
    _check_gaps(made, _wanted(made, asked, max_batch_size, batch_axis), max_batch_size, batch_axis)
    return [_profile(inputs, profile, shape_tensors) for profile in made]


def _axes(inputs: Sequence[TensorSpec], shape_tensors: Collection[str]) -> dict[str, TensorSpec]:
    """Everything that needs a range: dynamic axes, and values of shape tensors; each with the first input it is in."""
    found: dict[str, TensorSpec] = {}
    for tensor in inputs:
        if tensor.name in shape_tensors:
            if len(tensor.shape) > 1 or any(isinstance(size, str) for size in tensor.shape):
                raise SignatureError(
                    f"{tensor} decides shapes by its values",
                    expected="a scalar or a vector of fixed length",
                    mend="export the model so that shapes come from constants or from other inputs' shapes",
                )
            found |= dict.fromkeys(_values(tensor), tensor)
        else:
            for size in tensor.shape:
                if isinstance(size, str):
                    found.setdefault(size, tensor)
    return found


def _values(tensor: TensorSpec) -> list[str]:
    count = tensor.shape[0] if tensor.shape else 1
    return [f"{tensor.name}[{place}]" for place in range(count)] if isinstance(count, int) else []


def _check_known(
    axes: Mapping[str, TensorSpec], inputs: Sequence[TensorSpec], ranges: Ranges, buckets: Sequence[Ranges]
) -> None:
    choices = [*axes, *{t.name for t in inputs if f"{t.name}[0]" in axes}]
    places = [("shapes", ranges), *((f"tensorrt.profiles[{n}]", bucket) for n, bucket in enumerate(buckets))]
    for place, given in places:
        for axis in given:
            if axis not in choices:
                raise SpecError(
                    f"{place}: the model has no dynamic axis {axis!r}{nearest(axis, choices)}",
                    expected="one of " + ", ".join(choices)
                    if choices
                    else "none: every size is static: " + "; ".join(map(str, inputs)),
                    mend="correct the name, or export the model with a dynamic axis of that name",
                )


def _each(axes: Mapping[str, TensorSpec], ranges: Ranges) -> dict[str, AxisRange]:
    """The ranges by axis; that of a whole shape tensor stands for each of its values."""
    found = {axis: ranges[axis] for axis in axes if axis in ranges}
    for axis, tensor in axes.items():
        if axis in _values(tensor) and tensor.name in ranges:
            found.setdefault(axis, ranges[tensor.name])
    return found


def _resolved(axes: Mapping[str, TensorSpec], known: Ranges) -> dict[str, AxisRange]:
    for axis, tensor in axes.items():
        if axis not in known:
            what = "value" if axis in _values(tensor) else "dynamic axis"
            raise SpecError(
                f"the {what} {axis!r} of {tensor} has no range",
                expected="min, opt and max: a TensorRT plan is built for a range of sizes",
                mend=f"add to the spec: shapes: {{{axis}: {{min: 1, opt: 8, max: 16}}}} with the sizes that you serve",
            )
    return {axis: known[axis] for axis in axes}


def _check_inside(made: Sequence[Ranges], asked: Ranges) -> None:
    for axis, range_ in asked.items():
        for number, profile in enumerate(made):
            if not range_.min <= profile[axis].min <= profile[axis].max <= range_.max:
                raise SpecError(
                    f"tensorrt.profiles: profile {number} takes {axis} {_span(profile[axis])}, "
                    f"shapes says {_span(range_)}",
                    expected=f"buckets inside the range of shapes.{axis}",
                    mend=f"widen shapes.{axis}, or correct the profile",
                )


def _wanted(
    made: Sequence[Ranges], ranges: Ranges, max_batch_size: int, batch_axis: str | None
) -> dict[str, tuple[int, int]]:
    """The sizes that requests may have: every batch, the spec's ranges, else whatever a profile takes."""
    found = {}
    for axis in made[0]:
        if max_batch_size and axis == batch_axis:
            found[axis] = (1, max_batch_size)
        elif axis in ranges:
            found[axis] = (ranges[axis].min, ranges[axis].max)
        else:
            found[axis] = (min(p[axis].min for p in made), max(p[axis].max for p in made))
    return found


def _check_gaps(
    made: Sequence[Ranges], wanted: Mapping[str, tuple[int, int]], max_batch_size: int, batch_axis: str | None
) -> None:
    for cell in _cells(made, wanted):
        if not any(all(p[a].min <= low and high <= p[a].max for a, (low, high) in cell.items()) for p in made):
            sizes = " with ".join(f"{axis} {_sizes(*span)}" for axis, span in cell.items())
            raise SpecError(
                f"no optimization profile takes {sizes}; there are: " + "; ".join(map(_shown, made)),
                expected="profiles that together take "
                + ", ".join(
                    f"{axis} {_sizes(*span)}" + (f" (max_batch_size {max_batch_size})" if axis == batch_axis else "")
                    for axis, span in wanted.items()
                )
                + ": the server fails a batch that fits none",
                mend="widen a profile, add one, or lower "
                + ("batching.max_batch_size" if batch_axis in cell else "the range in shapes"),
            )


def _cells(made: Sequence[Ranges], wanted: Mapping[str, tuple[int, int]]) -> Iterator[dict[str, tuple[int, int]]]:
    """The wanted sizes, cut wherever a profile begins or ends: inside of a cell all sizes fit the same profiles."""
    spans = []
    for axis, (low, high) in wanted.items():
        cuts = {low, *(p[axis].min for p in made), *(p[axis].max + 1 for p in made)}
        starts = sorted(cut for cut in cuts if low <= cut <= high)
        spans.append(list(zip(starts, [*(start - 1 for start in starts[1:]), high], strict=True)))
    for cell in itertools.product(*spans):
        yield dict(zip(wanted, cell, strict=True))


def _profile(inputs: Sequence[TensorSpec], sizes: Ranges, shape_tensors: Collection[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    values = {}
    for tensor in inputs:
        if tensor.name in shape_tensors:
            values[tensor.name] = {kind: [getattr(sizes[v], kind) for v in _values(tensor)] for kind in _KINDS}
        elif any(isinstance(size, str) for size in tensor.shape):
            made[tensor.name] = {
                kind: [getattr(sizes[size], kind) if isinstance(size, str) else size for size in tensor.shape]
                for kind in _KINDS
            }
    return {**made, "values": values} if values else made


def _shown(profile: Ranges) -> str:
    return ", ".join(f"{axis} {_span(range_)}" for axis, range_ in profile.items())


def _span(range_: AxisRange) -> str:
    return _sizes(range_.min, range_.max)


def _sizes(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}..{high}"
