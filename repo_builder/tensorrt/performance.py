"""What a plan does on its GPU, in the numbers that trtexec prints and people compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repo_builder.tensorrt.installation import Installation
    from repo_builder.toolchain import Progress

_ROWS = (("latency", "latency"), ("enqueue", "enqueue"), ("h2d", "H2D"), ("compute", "GPU compute"), ("d2h", "D2H"))
_COLUMNS = ("min", "mean", "median", "p90", "p95", "p99", "max")


@dataclass(frozen=True)
class Statistics:
    """Of the iterations of one run, in milliseconds."""

    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Statistics:
        """Over one sample or more."""
        ordered = sorted(samples)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        p90, p95, p99 = (percentile(ordered, percent) for percent in (90, 95, 99))
        return cls(ordered[0], math.fsum(ordered) / len(ordered), median, p90, p95, p99, ordered[-1])


@dataclass(frozen=True)
class Run:
    """One profile at one batch size.

    Attributes:
        profile: index of the optimization profile.
        batch: size of axis 0 of the inputs; None for a plan without a dynamic one.
        shapes: of every input; values: of the inputs that are shape tensors.
        cuda_graph: the computation was launched as one graph; cuda_graph_error: why not, where it was asked for.
        queries_per_second: iterations by wall clock, copies of one overlapping the computation of another.
        samples_per_second: that times the batch size.
        latency: H2D, computation and D2H of an iteration together, without waiting in between.
        enqueue: time of the host to launch the computation; h2d, d2h: copies; compute: the GPU's own time.
        h2d_bytes, d2h_bytes: what one iteration copies.
    """

    profile: int
    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, tuple[int, ...]]
    cuda_graph: bool
    cuda_graph_error: str
    iterations: int
    seconds: float
    queries_per_second: float
    samples_per_second: float | None
    latency: Statistics
    enqueue: Statistics
    h2d: Statistics
    compute: Statistics
    d2h: Statistics
    h2d_bytes: int
    d2h_bytes: int


@dataclass(frozen=True)
class Skipped:
    """A profile that does not hold a batch size."""

    profile: int
    batch: int | None
    why: str


@dataclass(frozen=True)
class Performance:
    """Every run of a plan on one GPU.

    Attributes:
        plan: the file's name; plan_bytes: its size.
        module: ``tensorrt`` or ``tensorrt_rtx``; version: ``8.6.1``.
        gpu: ``NVIDIA H100 80GB HBM3``; compute_capability: ``9.0``; cuda: the newest CUDA that its driver knows.
    """

    plan: str
    plan_bytes: int
    module: str
    version: str
    gpu: str
    compute_capability: str
    cuda: str
    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values, times in milliseconds."""
        return asdict(self)


def measure(
    installation: Installation,
    plan: Path,
    *,
    batches: Sequence[int] = (),
    profiles: Sequence[int] | None = None,
    warm_up_ms: float = 200,
    duration_s: float = 3,
    cuda_graph: bool = False,
    plugins: Sequence[Path] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Path | None = None,
    version_compatible: bool = False,
    progress: Progress | None = None,
) -> Performance:
    """Time a plan on the first GPU, in a process of its own.

    Args:
        installation: the TensorRT that opens it.
        plan: the file.
        batches: sizes of axis 0; none for each profile's optimum.
        profiles: indices of optimization profiles; None for all. One that does not hold a batch is skipped.
        warm_up_ms: iterations before the measured ones.
        duration_s: of each run, at least 10 iterations.
        cuda_graph: launch the computation as one CUDA graph.
        plugins: libraries to load first.
        shapes: per input its shape (or a shape tensor's values) in place of the optimum; axis 0 is the batch's.
        inputs: npz file of real inputs instead of random ones; they fix the batch.
        version_compatible: let the plan run the runtime that it carries (code inside the plan).
        progress: called with one line per step.

    Raises:
        RepoBuilderError: as ``calls.call``: no GPU, the plan does not open there, or no profile holds a batch.
    """
    from repo_builder.tensorrt import calls

    request = {
        "plan": str(plan.absolute()),
        "batches": list(batches) or None,
        "profiles": None if profiles is None else list(profiles),
        "warm_up_ms": warm_up_ms,
        "duration_s": duration_s,
        "cuda_graph": cuda_graph,
        "plugins": [str(plugin.absolute()) for plugin in plugins],
        "shapes": {name: list(shape) for name, shape in (shapes or {}).items()},
        "inputs": str(inputs.absolute()) if inputs else None,
        "version_compatible": version_compatible,
    }
    return of_answer(plan.name, calls.call(installation, "bench.py", request, progress=progress))


def of_answer(plan: str, answer: Mapping[str, Any]) -> Performance:
    """The values of what ``worker/bench.py`` answers for the plan of this file name."""
    device = answer["device"]
    return Performance(
        plan=plan,
        plan_bytes=answer["plan_bytes"],
        module=answer["module"],
        version=answer["version"],
        gpu=device["name"],
        compute_capability=device["compute_capability"],
        cuda=device["cuda"],
        runs=tuple(_run(run) for run in answer["runs"]),
        skipped=tuple(Skipped(one["profile"], one["batch"], one["why"]) for one in answer["skipped"]),
    )


def _run(run: Mapping[str, Any]) -> Run:
    samples = run["milliseconds"]
    latency = [sum(parts) for parts in zip(samples["h2d"], samples["compute"], samples["d2h"], strict=True)]
    queries = run["iterations"] / run["seconds"]
    return Run(
        profile=run["profile"],
        batch=run["batch"],
        shapes={name: tuple(shape) for name, shape in run["shapes"].items()},
        values={name: tuple(values) for name, values in run["values"].items()},
        cuda_graph=run["cuda_graph"],
        cuda_graph_error=run["cuda_graph_error"] or "",
        iterations=run["iterations"],
        seconds=run["seconds"],
        queries_per_second=queries,
        samples_per_second=None if run["batch"] is None else queries * run["batch"],
        latency=Statistics.of(latency),
        **{name: Statistics.of(samples[name]) for name in ("enqueue", "h2d", "compute", "d2h")},
        h2d_bytes=run["bytes"]["h2d"],
        d2h_bytes=run["bytes"]["d2h"],
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The sample below which so many percent lie, as trtexec counts: no interpolation.

    Args:
        ordered: ascending, one or more.
        percent: 0 to 100.
    """
    left_out = len(ordered) * (100 - percent) // 100
    return ordered[max(len(ordered) - 1 - left_out, 0)]


def table(performance: Performance) -> str:
    """All runs as text for a terminal, a block each."""
    name = "TensorRT-RTX" if performance.module == "tensorrt_rtx" else "TensorRT"
    lines = [
        f"{performance.plan} ({_size(performance.plan_bytes)}), {name} {performance.version}, {performance.gpu} "
        f"(compute capability {performance.compute_capability}, CUDA {performance.cuda})"
    ]
    for run in performance.runs:
        lines += ["", *_block(run)]
    lines += [""] * bool(performance.skipped)
    lines += [f"skipped: profile {one.profile}, batch {one.batch}: {one.why}" for one in performance.skipped]
    return "\n".join(lines)


def _block(run: Run) -> list[str]:
    inputs = ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in run.shapes.items())
    batch = "" if run.batch is None else f", batch {run.batch}"
    samples = "" if run.samples_per_second is None else f", {run.samples_per_second:,.1f} samples/s"
    graph = ", CUDA graph" if run.cuda_graph else ""
    lines = [
        f"profile {run.profile}{batch}{graph}: {run.queries_per_second:,.1f} queries/s{samples} "
        f"({run.iterations} iterations, {run.seconds:.1f} s)",
        f"  inputs: {inputs}; {_size(run.h2d_bytes)} in, {_size(run.d2h_bytes)} out",
    ]
    if run.cuda_graph_error:
        lines.append(f"  no CUDA graph: {run.cuda_graph_error}")
    lines.append(f"  {'ms':<12}" + "".join(f"{column:>9}" for column in _COLUMNS))
    for field, title in _ROWS:
        found = getattr(run, field)
        lines.append(f"  {title:<12}" + "".join(f"{getattr(found, column):>9.3f}" for column in _COLUMNS))
    return lines


def _size(count: int) -> str:
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
