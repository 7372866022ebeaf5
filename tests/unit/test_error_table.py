"""The table of errors in docs/frameworks.md tells of every row of the script that writes it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scripts import error_table
from scripts.error_rows import ROWS

ERROR = re.compile(r"\d\.\de[-+]\d\d \(\d\.\de[-+]\d\d\)|equal|no")


def test_the_page_has_a_line_for_every_row() -> None:
    lines = error_table.read(error_table.PAGE.read_text(encoding="utf-8"))
    assert [line[:2] for line in lines] == [(row.source, row.model) for row in ROWS]
    assert len({line[:2] for line in lines}) == len(lines)
    assert all(ERROR.fullmatch(line[4]) and len(line[5]) > 5 for line in lines)


def test_what_is_written_is_read_back() -> None:
    last, first = error_table.refused(ROWS[3], "it broke at /a/b.py | c\nand more"), (*line("1.0e-07"),)
    page = f"above\n{error_table.BEGIN}\n{error_table.END}\nbelow\n"
    written = error_table.replaced(page, {one[:2]: one for one in (last, first)})
    assert written.startswith("above\n")
    assert written.endswith("below\n")
    assert "it broke at b.py \\| c |" in written
    assert error_table.read(written) == [first, last], "in the order of the rows"
    assert error_table.replaced(written, {one[:2]: one for one in error_table.read(written)}) == written


def line(error: str) -> tuple[str, ...]:
    return (ROWS[0].source, ROWS[0].model, "a", "b", error, "`y`, case 1 (alone) at [0, 2]", "equal, 7 cases")


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"exporter": "dynamo", "torch": "2.13.0+cpu", "opset": 20}, "dynamo, torch 2.13.0+cpu, opset 20"),
        (
            {"exporter": "tensorflow-2.21.0", "tensorflow": "2.21.0", "tf2onnx": "1.17.0", "opset": 17},
            "tensorflow 2.21.0, tf2onnx 1.17.0, opset 17",
        ),
        ({"exporter": "trees", "xgboost": "3.2.0", "batch": "batch", "opset": 9}, "xgboost 3.2.0, opset 9"),
        ({"exporter": "none: taken as it is", "opset": 7}, "none, opset 7"),
    ],
)
def test_the_converter_is_told_with_its_versions(engine: dict[str, Any], told: str) -> None:
    assert error_table.tools(engine) == told


def test_a_line_tells_the_largest_error_and_its_place() -> None:
    outputs = {
        "a": {"max_abs_error": 1e-7, "max_rel_error": 1e-3, "where": "case 0 (alone)"},
        "b": {"max_abs_error": 2e-6, "max_rel_error": 4e-7, "where": "case 3 (batched) at [0, 4]"},
    }
    engine = {"exporter": "trees", "opset": 9, "max_abs_error": {"a": 0.0, "b": 3e-7}, "cases": 7}
    reference = "the lightgbm file itself, in LightGBM 4.7 on the CPU, in a process of its own"
    report = {"outputs": outputs, "engine": engine, "reference": reference, "cases": 8}
    result = type("Result", (), {"failed": {}, "reports": {"row0": report}})
    assert error_table.line(ROWS[0], result, "row0")[2:] == (
        "LightGBM 4.7 on the CPU",
        "opset 9",
        "2.0e-06 (4.0e-07)",
        "`b`, case 3 (batched) at [0, 4]",
        "3.0e-07, `b`, 7 cases",
    )
