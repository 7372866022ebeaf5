"""docs/architectures.md tells every architecture with every task of the script that writes it, and nothing else."""

from __future__ import annotations

import re

import pytest

from scripts import architectures
from scripts.architectures import Cell

PAGE = architectures.PAGE.read_text(encoding="utf-8")
PROVEN = re.compile(r"(dynamo|script|trace)(, (dynamo|script|trace))* (\d\.\de[-+]\d\d|equal)")


def _rows(first: str) -> list[list[str]]:
    """The table whose header starts with ``first``: header and rows."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return [table[0], *table[2:]]


def test_the_page_has_a_cell_for_every_architecture_and_task() -> None:
    header, *rows = _rows(f"| architecture | {next(iter(architectures.TASKS))}")
    assert header == ["architecture", *architectures.TASKS]
    assert [row[0] for row in rows] == list(architectures.ARCHITECTURES)
    shown = {cell for row in rows for cell in row[1:]}
    known = {architectures.NO_HEAD, architectures.REFUSED}
    assert {cell for cell in shown if not PROVEN.fullmatch(cell)} <= known


def test_the_page_says_why_for_every_refusal_and_only_for_those() -> None:
    header, *rows = _rows(f"| architecture | {next(iter(architectures.TASKS))}")
    refused = {(row[0], task) for row in rows for task, cell in zip(header[1:], row[1:], strict=True) if cell == "no"}
    whys = {(row[0], row[1]): row[2] for row in _rows("| architecture | task | why |")[1:]} if refused else {}
    assert set(whys) == refused
    assert all(len(why) > 10 for why in whys.values())


def test_what_is_written_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "heads", lambda _: ("base", "masked-lm"))
    table = {
        ("bert", "fill-mask"): Cell("dynamo 1.2e-06"),
        ("t5", "feature-extraction"): Cell("no", architectures.reason("it broke:\n  dynamo: at /a/b.py | c")),
    }
    page = architectures.replaced(f"above\n{architectures.BEGIN}\n{architectures.END}\nbelow\n", table)
    assert page.startswith("above\n")
    assert page.endswith("below\n")
    assert "| t5 | feature-extraction | it broke: dynamo: at b.py \\| c |" in page
    assert architectures.read(page) == table
    assert architectures.replaced(page, architectures.read(page)) == page
