"""The proof: stored cases against a running server, over gRPC. Needs no framework."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from repo_builder.client import Client
from repo_builder.compare import Errors, compare, is_exact, masked, settled
from repo_builder.errors import InferenceError
from repo_builder.proof import Arrays, Case, Proof

MODES = ("alone", "batched", "concurrent", "separately")
_CONCURRENCY, _STREAMS = 8, 32
_NOTHING = "nothing to compare: the source's answers are empty or NaN in every case (give other inputs, `samples:`)"
Progress = Callable[[str], None]


@dataclass
class ModelReport:
    """What was measured for one public model.

    Attributes:
        inputs: Triton's dtype by name.
        outputs: by name: ``max_abs_error``, ``max_rel_error``, ``cosine`` (worst of all requests), the limits, the
            worst case, and the same by mode (each case alone, in mixed batches, from several clients at once; and the
            first case for each output separately).
        latency_ms: p50, p90, p99 and mean of the requests of the mode ``alone``, after one to warm up, as this client
            saw them.
        first_response_ms: the same until the first response, of models that stream.
        requests: how many requests of each mode were sent.
        refused: the server's messages where it answered with an error.
    """

    model: str
    reference: str
    passed: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    cases: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    first_response_ms: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """One line for everything that did not pass."""
        lines = [
            f"output {name}: {o['problem'] or _numbers(o)} (allowed: {_limits(o)}), worst for {o['where']}"
            for name, o in self.outputs.items()
            if not o["passed"]
        ]
        return lines + self.refused


def validate(client: Client, proof: Proof, progress: Progress = lambda _: None) -> ModelReport:
    """Send every case alone, in mixed batches and concurrently; compare with the source's stored answers."""
    report = ModelReport(proof.model, proof.reference, inputs=proof.inputs(), cases=len(proof.cases))
    errors: dict[str, dict[str, Errors]] = {}
    latencies: list[float] = []
    firsts: list[float] = []
    size = int(client.config(proof.model).max_batch_size) if proof.batched else 0

    def send(
        rows: Sequence[int], mode: str, names: tuple[str, ...] = _names(proof)
    ) -> tuple[dict[str, Errors], float] | str:
        started = time.perf_counter()
        try:
            inputs = _merge([proof.cases[c] for c in rows])
            if proof.streamed:
                served, first = _whole(client, proof, inputs, names)
                firsts.append(first)
            else:
                served = client.infer(proof.model, inputs, outputs=names)
        except InferenceError as error:
            return f"{_where(rows, mode)}: {error.found}"
        return _measure(proof, rows, served, mode), time.perf_counter() - started

    requests = {"alone": [[c] for c in range(len(proof.cases))]}
    if size > 1 and len(proof.cases) > 1:
        requests["batched"] = list(_mixed(proof, size))
    requests["concurrent"] = requests["alone"]
    send(requests["alone"][0], "warm-up")
    for mode in requests:
        progress(f"{len(requests[mode])} requests {mode}")
        several = _STREAMS if proof.streamed else _CONCURRENCY
        with ThreadPoolExecutor(several if mode == "concurrent" else 1) as pool:
            for answer in pool.map(lambda rows, mode=mode: send(rows, mode), requests[mode]):
                if isinstance(answer, str):
                    report.refused.append(answer)
                    continue
                if mode == "alone":
                    latencies.append(answer[1])
                for name, found in answer[0].items():
                    by_mode = errors.setdefault(name, {})
                    by_mode[mode] = by_mode[mode].worst(found) if mode in by_mode else found
        report.requests[mode] = len(requests[mode])
    if len(_names(proof)) > 1:
        progress(f"{len(_names(proof))} requests separately")
        _one_by_one(report, proof, errors, send)
    _conclude(report, proof, errors)
    report.latency_ms = _percentiles(latencies)
    report.first_response_ms = _percentiles(firsts[1 : 1 + len(latencies)])
    return report


def _whole(client: Client, proof: Proof, inputs: Arrays, names: Sequence[str]) -> tuple[Arrays, float]:
    """All responses of a decoupled model as one answer, and the seconds until the first of them."""
    started, first = time.perf_counter(), 0.0
    parts: list[Arrays] = []
    for part in client.stream(proof.model, inputs, outputs=names):
        first = first or time.perf_counter() - started
        parts.append(part)
    answer = {}
    for name in names:
        texts = [b"".join(_raw(v) for v in part[name].reshape(-1)) for part in parts if name in part]
        text = b"".join(texts) if proof.streamed == "deltas" else (texts or [b""])[-1]
        answer[name] = np.array([text], dtype=object)
    return answer, first


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8")


def _one_by_one(report: ModelReport, proof: Proof, errors: dict[str, dict[str, Errors]], send: Any) -> None:
    """Ask for each output alone: an ensemble leaves out the steps that nobody asks for, and may leave out too much."""
    mode = "separately"
    for name in _names(proof):
        answer = send([0], mode, (name,))
        if isinstance(answer, str):
            report.refused.append(f"{answer} (asked for {name} alone)")
        elif name in answer[0]:
            errors.setdefault(name, {})[mode] = answer[0][name]
    report.requests[mode] = len(_names(proof))


def _names(proof: Proof) -> tuple[str, ...]:
    return tuple(proof.cases[0].outputs)


def _where(rows: Sequence[int], mode: str) -> str:
    return f"case {', '.join(str(c) for c in rows[:4])}{', ...' if len(rows) > 4 else ''} ({mode})"


def _rows(case: Case) -> int:
    """The size of the batch dimension."""
    return int(next(iter(case.inputs.values())).shape[0])


def _merge(cases: Sequence[Case]) -> Arrays:
    first = cases[0].inputs
    return first if len(cases) == 1 else {n: np.concatenate([c.inputs[n] for c in cases]) for n in first}


def _mixed(proof: Proof, size: int) -> Iterator[list[int]]:
    """Batches of mixed cases, in a seeded order, of sizes from 2 to ``size``; only equal tails can share a request."""
    order = list(range(len(proof.cases)))
    random.Random(0).shuffle(order)
    tails: dict[Any, list[int]] = {}
    for c in order:
        tails.setdefault(tuple((n, a.shape[1:]) for n, a in proof.cases[c].inputs.items()), []).append(c)
    for rows in tails.values():
        start, step = 0, 0
        while start < len(rows):
            wanted = min((2, size, 3, 8, 5)[step % 5], size)
            used, batch = 0, list[int]()
            for row in rows[start:]:
                count = _rows(proof.cases[row])
                if batch and used + count > wanted:
                    break
                batch.append(row)
                used += count
            yield batch
            start, step = start + len(batch), step + 1


def _measure(proof: Proof, rows: Sequence[int], served: Arrays, mode: str) -> dict[str, Errors]:
    found: dict[str, Errors] = {}
    start = 0
    for c in rows:
        case = proof.cases[c]
        count = _rows(case) if proof.batched else 0
        part = {n: a[start : start + count] if proof.batched else a for n, a in served.items()}
        start += count
        for name, source in case.outputs.items():
            mask, ranking = proof.masks.get(name), proof.ranked.get(name)
            needed = (name, mask or name, ranking.values if ranking else name)
            if not all(one in part for one in needed):
                continue
            if ranking:
                values = part[ranking.values], case.outputs[ranking.values]
                part[name] = settled(part[name], source, *values, whole=ranking.whole)
            own = masked(part[name], part[mask]) if mask else part[name]
            errors = compare(own, masked(source, case.outputs[mask]) if mask else source, f"case {c} ({mode})")
            found[name] = found[name].worst(errors) if name in found else errors
    return found


def _conclude(report: ModelReport, proof: Proof, errors: dict[str, dict[str, Errors]]) -> None:
    for name in _names(proof):
        by_mode = errors.get(name, {})
        total = Errors(problem=("" if _telling(proof, name) else _NOTHING) if by_mode else "no request was answered")
        for found in by_mode.values():
            total = total.worst(found)
        exact = is_exact(proof.cases[0].outputs[name])
        limit = proof.tolerance(name)
        report.outputs[name] = {
            "passed": total.passes(limit, exact),
            **asdict(total),
            "exact": exact,
            "limits": {k: v for k, v in asdict(limit).items() if v is not None},
            "by_mode": {m: {"max_abs_error": e.max_abs_error, "cosine": e.cosine} for m, e in by_mode.items()},
        }
    report.passed = not report.refused and all(o["passed"] for o in report.outputs.values())


def _telling(proof: Proof, name: str) -> bool:
    """Whether any case of an output has a value to compare: neither empty nor NaN throughout."""
    arrays = (masked(case.outputs[name], case.outputs.get(proof.masks.get(name, ""))) for case in proof.cases)
    return any(array.size and (is_exact(array) or not np.isnan(array).all()) for array in arrays)


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    values = {f"p{q}": float(np.percentile(seconds, q)) for q in (50, 90, 99)}
    return {name: round(1000 * v, 3) for name, v in {**values, "mean": float(np.mean(seconds))}.items()}


def _numbers(output: dict[str, Any]) -> str:
    if output["exact"]:
        return f"{output['max_abs_error']:.2%} of the elements differ"
    return f"max abs error {output['max_abs_error']:.3g}, cosine {output['cosine']:.7f}"


def _limits(output: dict[str, Any]) -> str:
    return "equal" if output["exact"] else ", ".join(f"{k} {v:g}" for k, v in output["limits"].items()) or "any"
