"""The precision of an ONNX file, written into the graph before TensorRT sees it, and what it costs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.artifact import Artifact
from repo_builder.convert import (
    half_values,
    kept_nodes,
    onnx_angles,
    onnx_graph,
    onnx_half,
    onnx_quantized,
    onnx_typed,
    precision_loss,
    precision_search,
)
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.precision_loss import Kept, Loss
from repo_builder.errors import ConversionError, SpecError, TargetError, nearest
from repo_builder.formats import onnx as onnx_format

if TYPE_CHECKING:
    from onnx import ModelProto

Progress = Callable[[str], None]
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
LIMITS = {"fp16": 5e-3, "bf16": 2e-2, "int8": 5e-2, "fp8": 5e-2}
"""The relative error that ``keep_fp32="measure"`` stays under where the caller names none."""
MEASURE = "measure"
_HALVES = {"fp16": half_values.FLOAT16, "bf16": half_values.BFLOAT16}
_LOWEST = {"int8": 13, "fp8": 19}
_HALF_SCALES = 19
_BF16_EVERYWHERE = 22
_MEASURED_ON = 8


@dataclass(frozen=True)
class _Job:
    """One conversion: the prepared file, for int8 and fp8 the same with Q/DQ nodes, and what is asked of it."""

    path: Path
    quantised: Path | None
    precision: str
    rest: str
    keep_io_types: bool
    cases: Sequence[CheckedCase]
    outputs: tuple[str, ...]
    angles: tuple[str, ...]


def convert(
    source: Artifact,
    out: Path,
    precision: str,
    *,
    cases: Sequence[CheckedCase],
    max_opset: int,
    keep_fp32: Sequence[str] | str = (),
    keep_io_types: bool = True,
    rest: str = "fp16",
    limit: float | None = None,
    progress: Progress | None = None,
) -> tuple[Artifact, Loss]:
    """The source in a precision, written to ``out``, and its loss; for fp32 and tf32 the source itself.

    Args:
        source: an Artifact of format ``onnx``, in float32 or in part of it.
        out: the file to write, in a folder that exists.
        precision: one of ``PRECISIONS``.
        cases: inputs with the source's outputs in the order of ``source.outputs``; int8 and fp8 take their ranges
            from them, every loss is measured on them.
        max_opset: the highest opset that the parser reads: 17 for TensorRT 8.6.
        keep_fp32: nodes that stay in float32, by name, operator or pattern (``fnmatch``), or ``"measure"``.
        keep_io_types: inputs and outputs stay float32, with casts at the edges of the graph.
        rest: what surrounds int8 and fp8: ``fp16``, where ``max_opset`` allows half scales (19), or ``fp32``.
        limit: the relative error that ``"measure"`` stays under; default by precision (``LIMITS``).

    Raises:
        SpecError: an unknown precision; a name or pattern that fits no node.
        TargetError: a precision that ``max_opset`` cannot say.
        ConversionError: an answer is not finite, the graph cannot be typed, there is nothing to convert.
    """
    _check(precision, max_opset, cases)
    if precision not in LIMITS:
        return source, Loss(precision, {}, 0.0)
    tell = progress or (lambda _line: None)
    with tempfile.TemporaryDirectory(prefix=".precision-", dir=out.parent) as folder:
        job = _prepared(source, Path(folder), precision, rest, keep_io_types, cases, max_opset)
        if job.quantised:
            tell(f"calibrating {precision} on {len(cases)} sets of inputs")
            onnx_quantized.quantize(job.path, job.quantised, cases, fp8=precision == "fp8")
        nodes = _nodes(job)
        if keep_fp32 == MEASURE:
            kept = _measured(job, nodes, limit or LIMITS[precision], tell)
        else:
            kept = dict.fromkeys(kept_nodes.chosen(keep_fp32, job.path, _floats(job) if keep_fp32 else None), math.nan)
        tell(f"writing {precision} into the graph")
        made = Path(folder) / out.name
        low, other = _write(job, made, frozenset(kept))
        onnx_format.check(made)
        losses = _loss(job, made)
        artifact = onnx_format.describe(made)
        for name in artifact.files:
            (artifact.folder / name).replace(out.parent / name)
        share = len(low) / max(1, len(low) + len(other))
        stays = _reasons(job, kept, other)
        loss = Loss(precision, losses, share, stays, len(cases), (*_notes(job, cases), *_later(job, artifact, stays)))
    provenance = {**source.provenance, "precision": loss.facts()}
    return replace(artifact, path=out, batch=source.batch, provenance=provenance), loss


def _check(precision: str, max_opset: int, cases: Sequence[CheckedCase]) -> None:
    if precision not in PRECISIONS:
        raise SpecError(
            f"unknown precision {precision!r}{nearest(precision, list(PRECISIONS))}",
            expected="one of " + ", ".join(PRECISIONS),
        )
    if max_opset < _LOWEST.get(precision, 0):
        raise TargetError(
            f"{precision} needs opset {_LOWEST[precision]}, the target reads {max_opset} at most",
            expected="TensorRT 10 or newer for fp8; TensorRT 8.6 has no working fp8",
            mend="choose fp16 or int8, or a target with a newer TensorRT",
        )
    if precision in LIMITS and not cases:
        raise ConversionError(
            f"{precision} was asked for without a set of inputs to measure its loss on",
            expected="one case or more",
            mend="give samples",
        )


def _prepared(
    source: Artifact,
    folder: Path,
    precision: str,
    rest: str,
    keep_io_types: bool,
    cases: Sequence[CheckedCase],
    max_opset: int,
) -> _Job:
    """The source with names and types, at an opset that can say the precision."""
    model = onnx_typed.load(source.path)
    opset = min(onnx_graph.opset_of(model), max_opset)
    quantised = precision in _LOWEST
    rest = rest if quantised and max_opset >= _HALF_SCALES else "fp32" if quantised else ""
    if quantised:
        opset = max(opset, _LOWEST[precision], _HALF_SCALES if rest != "fp32" else 0)
    angles = onnx_angles.nodes(model.graph)
    path = folder / "prepared.onnx"
    _at(model, opset, path)
    job = _Job(
        path,
        folder / "quantised.onnx" if quantised else None,
        precision,
        rest,
        keep_io_types,
        cases,
        tuple(o.name for o in source.outputs),
        angles,
    )
    if precision == "bf16" and opset < _BF16_EVERYWHERE <= max_opset:
        stays = _write(job, folder / "try.onnx", frozenset())[1]
        if set(stays) - set(angles):
            _raise_opset(model, path)
    return job


def _raise_opset(model: ModelProto, path: Path) -> None:
    """bf16 is in ONNX's Conv, pooling and others from opset 22 on; a file that cannot be raised stays."""
    try:
        _at(model, _BF16_EVERYWHERE, path)
    except ConversionError:
        return


def _at(model: ModelProto, opset: int, path: Path) -> None:
    from onnx import helper

    made = onnx_graph.at_opset(model, opset)
    onnx_typed.name_nodes(made)
    lowest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    made.ir_version = max(made.ir_version, lowest)
    onnx_graph.save(made, path)


def _nodes(job: _Job) -> dict[str, str]:
    """Name -> operator of what could be in the low precision."""
    import onnx

    operators = kept_nodes.operators(job.path)
    if job.quantised:
        names = onnx_quantized.quantized(onnx.load(str(job.quantised), load_external_data=False))
        if not names:
            raise ConversionError(
                f"{job.precision} was asked for, and the graph has nothing to quantise",
                expected="a Conv, ConvTranspose, Gemm or MatMul with a weight",
                mend="choose fp16",
            )
        return {name: operators[name] for name in names}
    model = onnx_typed.load(job.path)
    half = onnx_half.halve(model, _HALVES[job.precision], job.angles).half
    return {name: operators[name] for name in half}


def _floats(job: _Job) -> frozenset[str]:
    """Names of the nodes that compute in floating point, low or not; the size of a float is none."""
    halved = onnx_half.halve(onnx_typed.load(job.path), _HALVES.get(job.precision, half_values.FLOAT16), job.angles)
    operators = kept_nodes.operators(job.path)
    return frozenset(name for name in (*halved.half, *halved.float32) if operators.get(name) not in ("Shape", "Size"))


def _write(job: _Job, out: Path, kept: frozenset[str]) -> tuple[list[str], list[str]]:
    """Write the file; gives the names of the nodes in the low precision, and of those that could not be."""
    stays = kept | frozenset(job.angles)
    if job.precision in _HALVES:
        model = onnx_typed.load(job.path)
        halved = onnx_half.halve(model, _HALVES[job.precision], stays, keep_io_types=job.keep_io_types)
        onnx_graph.save(model, out)
        return list(halved.half), list(halved.float32)
    assert job.quantised is not None
    model = onnx_typed.load(job.quantised)
    everything = onnx_quantized.quantized(model)
    onnx_quantized.release(model, kept)
    low = onnx_quantized.quantized(model)
    others = [name for name in everything if name not in low]
    if job.rest in _HALVES:
        onnx_half.halve(model, _HALVES[job.rest], stays, keep_io_types=job.keep_io_types)
    onnx_graph.save(model, out)
    return low, others


def _loss(job: _Job, path: Path) -> Mapping[str, precision_loss.OutputLoss]:
    try:
        return precision_loss.measure(path, job.cases, names=job.outputs)
    except precision_loss.NotFiniteError as error:
        at = precision_loss.overflow(path, job.cases)
        raise ConversionError(
            f"in {job.precision} {error.found}, where the source's are finite" + (f"; it starts at {at}" if at else ""),
            expected="finite answers",
            mend='keep the layers there in float32 (keep_fp32, or keep_fp32: "measure"), or choose bf16',
        ) from error


def _measured(job: _Job, nodes: Mapping[str, str], limit: float, tell: Progress) -> dict[str, float]:
    few = replace(job, cases=_spread(job.cases))
    path = job.path.with_name("attempt.onnx")
    count = 0

    def attempt(kept: frozenset[str]) -> float:
        nonlocal count
        count += 1
        tell(f"measuring {job.precision}, attempt {count}: {len(kept)} of {len(nodes)} nodes in float32")
        _write(job, path, kept)
        try:
            return precision_loss.worst(precision_loss.measure(path, few.cases, names=job.outputs))
        except precision_loss.NotFiniteError:
            return math.inf

    return precision_search.search(nodes, attempt, limit)


def _spread(cases: Sequence[CheckedCase]) -> Sequence[CheckedCase]:
    step = max(1, len(cases) // _MEASURED_ON)
    return cases[::step]


def _reasons(job: _Job, kept: Mapping[str, float], other: Sequence[str]) -> tuple[Kept, ...]:
    operators = kept_nodes.operators(job.path)
    reasons = []
    for name in dict.fromkeys([*kept, *(other if job.precision in _HALVES else ())]):
        if name in kept:
            why = "asked" if math.isnan(kept[name]) else "measured"
        else:
            why = "angles" if name in job.angles else precision_loss.NO_HALF
        without = kept.get(name, math.nan)
        reasons.append(Kept(name, operators.get(name, ""), why, without if math.isfinite(without) else None))
    return tuple(reasons)


def _later(job: _Job, artifact: Artifact, stays: Sequence[Kept]) -> list[str]:
    """What a newer parser would have in bf16."""
    waiting = [kept for kept in stays if kept.why == precision_loss.NO_HALF]
    if job.precision != "bf16" or not waiting or artifact.facts["opset"] >= _BF16_EVERYWHERE:
        return []
    operators = ", ".join(sorted({kept.operator for kept in waiting}))
    return [
        f"{len(waiting)} nodes ({operators}) are in float32: the file is at "
        f"opset {artifact.facts['opset']}, and ONNX has most operators in bf16 from {_BF16_EVERYWHERE} on"
    ]


def _notes(job: _Job, cases: Sequence[CheckedCase]) -> tuple[str, ...]:
    notes = ["measured in ONNX Runtime on the CPU, in float32 with every value rounded as the graph says"]
    if job.precision in _LOWEST:
        rows = sum(max((a.shape[0] for a in c.inputs.values() if a.ndim), default=1) for c in cases)
        notes.append(f"ranges from {rows} rows of samples, measured on the same rows")
        if rows < onnx_quantized.FEW_ROWS:
            notes.append(f"{rows} rows are few: give {onnx_quantized.FEW_ROWS} or more of real inputs as samples")
        notes.append(f"the other nodes are in {job.rest}")
    return tuple(notes)
