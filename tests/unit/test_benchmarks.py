"""What `make bench` makes of its figures: the workloads, the ratios and the tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))

    def imported(name: str) -> ModuleType:
        return importlib.import_module(name)

    return imported


def side(speeds: list[float], cpu_ms: float) -> dict[str, Any]:
    rounds = [{"texts_per_s": speed, "cpu_ms": cpu_ms} for speed in speeds]
    medians = {"texts_per_s": sorted(speeds)[len(speeds) // 2], "cpu_ms": cpu_ms, "client_cpu_ms": 0.5}
    return {**medians, "p50_ms": 1.0, "p99_ms": 2.0, "rounds": rounds}


def test_ratios_are_of_neighbours_against_the_fastest_arrangement(module: Any) -> None:
    found = {
        "served": side([100.0, 10.0, 90.0], 8.0),
        "copied layout": side([50.0, 5.0, 30.0], 20.0),
        "one session, all threads": side([1.0, 1.0, 1.0], 9.0),
        "a session per core": side([125.0, 20.0, 100.0], 6.0),
    }
    table = module("report").throughput({"8": found}).splitlines()
    assert table[2] == "| 8 | 90 | 100 | 30 | **0.80** (0.75) | **2.00** (2.50) | a session per core |"


def test_tables_replace_what_stands_between_the_markers(module: Any, tmp_path: Path) -> None:
    report, page = module("report"), tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n", encoding="utf-8")
    for tables in ("| a |", "| b |"):
        report.into(page, tables)
    assert page.read_text(encoding="utf-8") == f"before\n{report.BEGIN}\n| b |\n\n{report.END}\nafter\n"
    docs = (FOLDER.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert docs.count(report.BEGIN) == docs.count(report.END) == 1


def test_clients_take_turns_at_the_texts_and_every_answer_counts(module: Any) -> None:
    seen: list[str] = []
    found = module("load").closed_loop(seen.append, module("workloads").texts("mixed"), clients=3, seconds=0.05)
    assert len(found["latencies"]) == len(seen) >= 3
    assert seen[0] == module("workloads").texts("mixed")[0]


def test_workloads_have_the_lengths_that_they_say(module: Any) -> None:
    workloads = module("workloads")
    lengths = [len(text.split()) + 2 for text in workloads.texts("mixed")]
    assert (min(lengths), max(lengths)) == (workloads.SHORTEST, workloads.LONGEST)
    assert len(set(lengths)) > 100
    assert workloads.texts("mixed") == workloads.texts("mixed")
