"""Build, serve and prove a model of every format, and write the table of the largest errors in docs/frameworks.md.

`python scripts/error_table.py [--only PART,PART] [--page FILE]`

The numbers are those of the build's report. What was run replaces its lines; the others stay as they were. The models
are those of scripts/error_rows.py: a line each.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scripts.error_rows import ROWS, Row  # noqa: E402

PAGE = ROOT / "docs" / "frameworks.md"
BEGIN, END = "<!-- written by `make errors`: begin -->", "<!-- written: end -->"
HEADER = ("format", "model", "reference", "converter", "served (relative)", "where", "converted file")
AT_ONCE = 8
"""Models of one repository: each is a process of the server."""

Line = tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", default="", help="parts of formats or models, by commas")
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parts = asked.only.split(",")
    wanted = [row for row in ROWS if any(part in f"{row.source}: {row.model}" for part in parts)]
    failed = 0
    for start in range(0, len(wanted), AT_ONCE):
        found = build(wanted[start : start + AT_ONCE])
        page = asked.page.read_text(encoding="utf-8")
        asked.page.write_text(replaced(page, {line[:2]: line for line in (*read(page), *found)}), encoding="utf-8")
        for line in found:
            print(" | ".join(line), flush=True)
        failed += sum(line[4] == "no" for line in found)
    sys.exit(failed > 0)


def build(rows: Sequence[Row]) -> list[Line]:
    """Build some rows into one temporary repository, serve and prove it."""
    from repo_builder import pipeline
    from repo_builder.formats import framework_process
    from repo_builder.spec import Spec

    with tempfile.TemporaryDirectory() as folder:
        specs, lines = [], dict[int, Line]()
        for number, row in enumerate(rows):
            own = Path(folder) / str(number)
            own.mkdir()
            try:
                specs.append({"name": f"row{number}", "cpus": 1, **row.make(own)})
            except Exception as error:  # noqa: BLE001 - a model that cannot be made is a line of the table
                lines[number] = refused(row, f"not made: {type(error).__name__}: {error}")
        result = pipeline.build(Spec.model_validate({"models": specs}), Path(folder) / "repository")
        framework_process.close_all()
        for number, row in enumerate(rows):
            if number not in lines:
                lines[number] = line(row, result, f"row{number}")
        return [lines[number] for number in range(len(rows))]


def line(row: Row, result: Any, name: str) -> Line:
    """What the report tells of a row, or why there is none."""
    if name in result.failed:
        return refused(row, result.failed[name].found)
    report = result.reports[name]
    output, served = largest({o: told["max_abs_error"] for o, told in report["outputs"].items()})
    told = report["outputs"][output]
    error = f"{served:.1e} ({told['max_rel_error']:.1e})" if served else "equal"
    where = f"`{output}`, {told['where']}" if served else f"{report['cases']} cases"
    engine = report["engine"]
    return (row.source, row.model, reference(report), tools(engine), error, where, converted(engine))


def refused(row: Row, why: str) -> Line:
    why = re.sub(r"/\S*/", "", why.splitlines()[0]).replace("|", "\\|")
    return (row.source, row.model, "", "", "no", why if len(why) <= 300 else f"{why[:297]}...", "")


def largest(errors: Mapping[str, float]) -> tuple[str, float]:
    return max(errors.items(), key=lambda item: item[1])


def reference(report: Mapping[str, Any]) -> str:
    """Who computed the source's answers, with the version where the report tells it."""
    words = str(report["reference"]).partition(", in ")[2].removesuffix(", in a process of its own")
    return str(report["engine"].get("reference", words))


def tools(engine: Mapping[str, Any]) -> str:
    """What converted the model: the exporter, and the versions of what it ran on."""
    found = {k: v for k, v in engine.items() if isinstance(v, str) and re.match(r"\d+\.\d", v)}
    exporter = str(engine.get("exporter", "none")).partition(":")[0]
    named = [] if exporter in ("trees", *found) or exporter.partition("-")[0] in found else [exporter]
    opset = [f"opset {engine['opset']}"] if "opset" in engine else []
    return ", ".join([*named, *(f"{tool} {version}" for tool, version in found.items()), *opset])


def converted(engine: Mapping[str, Any]) -> str:
    """The largest error of the converted file against the source, on the conversion's own cases."""
    if "max_abs_error" not in engine:
        return "the file itself"
    output, error = largest(engine["max_abs_error"])
    return f"{f'{error:.1e}, `{output}`' if error else 'equal'}, {engine['cases']} cases"


def read(page: str) -> list[Line]:
    """The lines of a page's table."""
    inside = page.split(BEGIN)[1].split(END)[0].splitlines()
    rows = [tuple(re.split(r" (?<!\\)\| ", text.strip()[2:-2])) for text in inside if text.startswith("| ")]
    known = {(row.source, row.model) for row in ROWS}
    return [row for row in rows if row[:2] in known and len(row) == len(HEADER)]


def replaced(page: str, lines: Mapping[Line, Line]) -> str:
    """The page with its table written anew, in the order of ``ROWS``."""
    ordered = [lines[key] for row in ROWS if (key := (row.source, row.model)) in lines]
    table = [f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *ordered)]
    before, rest = page.split(BEGIN)
    return "\n".join([f"{before}{BEGIN}", "", *table, "", f"{END}{rest.split(END)[1]}"])


if __name__ == "__main__":
    main()
