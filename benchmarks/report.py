"""The tables of docs/benchmarks.md, from the figures of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import build_times
import sides

WORKLOADS = {
    "fixed": "One text of 16 tokens per request",
    "mixed": "One text of 4 to 200 tokens per request (log-uniform)",
}
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By clients and side."""


BEGIN, END = "<!-- written by `make bench`: begin -->\n", "<!-- written by `make bench`: end -->"


def into(page: Path, tables: str) -> None:
    """Put the tables between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{tables}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def markdown(result: Mapping[str, Any]) -> str:
    parts = []
    if "seconds" in result:
        parts.append(f"### Build times\n\n{seconds(result['seconds'])}")
    for workload, figures in result["throughput"].items():
        parts.append(f"### {WORKLOADS[workload]}\n\n{throughput(figures)}\n\n{latencies(figures)}")
    for workload, figures in result.get("variants", {}).items():
        parts.append(f"### {WORKLOADS[workload]}: what buckets, batching and instances give\n\n{variants(figures)}")
    packages, served = (
        ", ".join(f"{name} {version}" for name, version in result[key].items()) for key in ("packages", "versions")
    )
    parts.append(
        f"{result['cpus']} CPUs, {result['rounds']} rounds of {result['seconds_per_round']:g} s; built with "
        f"{packages}; served by {served}; in process the same ONNX Runtime. Largest difference between the answers of "
        f"all sides: {result['max_abs_difference']:.1e}."
    )
    return "\n\n".join(parts)


def seconds(found: Mapping[str, float]) -> str:
    rows = [[build_times.LABELS[k], f"{v:.1f}", f"{v / found['bare_export']:.2f}"] for k, v in found.items()]
    return table(["what", "seconds", "to the bare export"], rows)


def best(sides_: Mapping[str, Mapping[str, Any]]) -> str:
    """The fastest in-process arrangement."""
    arrangements = [name for name in sides_ if name not in ("served", "copied layout")]
    return max(arrangements, key=lambda name: sides_[name]["texts_per_s"])


def throughput(figures: Figures) -> str:
    """Texts per second, and ratios to the two others: of texts per second, in brackets of texts per CPU second."""
    rows = []
    for clients, found in figures.items():
        fastest, served = best(found), found["served"]
        others = [found[fastest], found["copied layout"]]
        speeds = [f"{one['texts_per_s']:.0f}" for one in (served, *others)]
        ratios = [f"**{sides.ratio(served, one):.2f}** ({sides.ratio(one, served, 'cpu_ms'):.2f})" for one in others]
        rows.append([clients, *speeds, *ratios, fastest])
    heads = ["clients", "served, texts/s", "in process", "copied layout", "served / in process", "served / copied"]
    return table([*heads, "best in process"], rows)


def latencies(figures: Figures) -> str:
    rows = []
    for clients, found in figures.items():
        three = [found["served"], found[best(found)], found["copied layout"]]
        cells = [f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f}" for one in three]
        cpu = [f"{one['cpu_ms']:.2f}" for one in three]
        rows.append([clients, *cells, *cpu, f"{three[0]['client_cpu_ms']:.2f}"])
    heads = ["clients", "served, p50 / p99 ms", "in process", "copied layout"]
    heads += ["served, CPU ms per text", "in process", "copied layout", "of it the clients"]
    return table(heads, rows)


def variants(figures: Figures) -> str:
    clients = list(figures)
    names = list(figures[clients[0]])
    rows = []
    for name in names:
        row = [name]
        for count in clients:
            one, built = figures[count][name], figures[count]["as built"]
            row += [f"{one['texts_per_s']:.0f}", f"{sides.ratio(one, built):.2f}", f"{one['cpu_ms']:.1f}"]
        rows.append(row)
    heads = [h for n in clients for h in (f"{n} clients, texts/s", "to as built", "CPU ms per text")]
    return table(["repository", *heads], rows)


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
