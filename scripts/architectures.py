"""Build, serve and prove every architecture with every task it has, and write the table in docs/architectures.md.

`python scripts/architectures.py [--only bert,roberta] [--tasks fill-mask] [--missing] [--page FILE]`

The models are tiny, with random weights. What was run replaces its cells; the others stay as they were.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import tiny_seq2seq, tiny_tokenizers, tiny_transformers  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
BEGIN, END = "<!-- written by `make architectures`: begin -->", "<!-- written: end -->"
AT_ONCE = 4
"""Models of one repository: every Python model of it is a process of the server."""

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "feature-extraction": ("base", {}),
    "sentence-embedding": ("base", {}),
    "sparse-embedding": ("masked-lm", {}),
    "text-classification": ("sequence-classification", {}),
    "token-classification": ("token-classification", {}),
    "question-answering": ("question-answering", {}),
    "fill-mask": ("masked-lm", {}),
    "zero-shot-classification": ("nli", {}),
    "reranking": ("sequence-classification", {"num_labels": 1}),
    "text2text-generation": ("seq2seq-lm", {}),
}
"""The head of ``tiny_transformers`` that each task takes, with fields of its config."""

SAMPLES = {
    "zero-shot-classification": [
        {"TEXT": text, "CANDIDATE_LABELS": [*("travel", "food", "Musik")[: number % 3 + 1]]}
        for number, text in enumerate(tiny_tokenizers.TEXTS)
        if text
    ]
}
"""Requests in place of the built-in ones, whose labels alone are longer than what a tiny model takes."""

ARCHITECTURES = (*tiny_transformers.ARCHITECTURES, "marian")
NO_HEAD, UNKNOWN, REFUSED = "–", "?", "no"


@dataclass(frozen=True)
class Cell:
    """What became of an architecture with a task: the exporters and the error, or why not."""

    shown: str
    why: str = ""


Table = dict[tuple[str, str], Cell]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", type=_several(ARCHITECTURES), help="architectures, by commas")
    parser.add_argument("--tasks", type=_several(TASKS), help="tasks, by commas")
    parser.add_argument("--missing", action="store_true", help="only what the page does not tell yet")
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = read(asked.page.read_text(encoding="utf-8"))
    wanted = [
        (architecture, task)
        for task in asked.tasks or TASKS
        for architecture in asked.only or ARCHITECTURES
        if TASKS[task][0] in heads(architecture) and not (asked.missing and (architecture, task) in known)
    ]
    for start in range(0, len(wanted), AT_ONCE):
        found = build(wanted[start : start + AT_ONCE])
        page = asked.page.read_text(encoding="utf-8")  # another run may have written cells meanwhile
        asked.page.write_text(replaced(page, read(page) | found), encoding="utf-8")
        for (architecture, task), cell in found.items():
            print(f"{task}: {architecture}: {cell.shown} {cell.why}".rstrip(), flush=True)


def heads(architecture: str) -> tuple[str, ...]:
    return ("seq2seq-lm",) if architecture == "marian" else tiny_transformers.heads(architecture)


def _several(known: Collection[str]) -> Any:
    def split(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return text.split(",")

    return split


def build(pairs: Sequence[tuple[str, str]]) -> Table:
    """Build some pairs into one temporary repository, serve and prove it."""
    from repo_builder import pipeline
    from repo_builder.spec import Spec

    with tempfile.TemporaryDirectory() as folder:
        models = []
        for architecture, task in pairs:
            head, config = TASKS[task]
            name = f"{architecture}-{task}"
            source = Path(folder) / name
            if head == "seq2seq-lm":
                tiny_seq2seq.save(architecture, source)
            else:
                tiny_transformers.save(architecture, head, source, **config)
            samples = {"texts": SAMPLES.get(task)}
            models.append({"name": name, "source": str(source), "task": task, "samples": samples, "cpus": 1})
        result = pipeline.build(Spec.model_validate({"models": models}), Path(folder) / "repository")
        return {pair: cell(result, "-".join(pair)) for pair in pairs}


def cell(result: Any, name: str) -> Cell:
    if name in result.failed:
        return Cell(REFUSED, reason(result.failed[name].found))
    report = result.reports[name]
    errors = [output["max_abs_error"] for output in report["outputs"].values() if not output["exact"]]
    return Cell(f"{report['engine']['exporter']} {f'{max(errors):.1e}' if errors else 'equal'}")


def reason(found: str) -> str:
    """One line of an error, without paths."""
    lines = [line.strip() for line in found.splitlines() if line.strip() and "full text:" not in line]
    text = re.sub(r"/\S*/", "", "; ".join(lines).replace(":;", ":")).replace("|", "\\|")
    return text if len(text) <= 400 else text[:397] + "..."


def read(page: str) -> Table:
    """The cells of a page."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    whys = {(row[0], row[1]): row[2] for row in rows if len(row) == 3}
    header = next((row for row in rows if row[0] == "architecture" and len(row) != 3), ["architecture"])
    table: Table = {}
    for row in rows:
        if len(row) == len(header) and row[0] in ARCHITECTURES:
            for task, shown in zip(header[1:], row[1:], strict=True):
                if shown.strip() not in (NO_HEAD, UNKNOWN):
                    table[row[0], task] = Cell(shown.strip(), whys.get((row[0], task), ""))
    return table


def replaced(page: str, table: Table) -> str:
    """The page with its tables written anew."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{render(table)}\n\n{END}{rest.split(END)[1]}"


def render(table: Table) -> str:
    lines = [f"| architecture | {' | '.join(TASKS)} |", f"|{' --- |' * (len(TASKS) + 1)}"]
    for architecture in ARCHITECTURES:
        has = heads(architecture)
        cells = [
            table.get((architecture, task), Cell(UNKNOWN)).shown if head in has else NO_HEAD
            for task, (head, _) in TASKS.items()
        ]
        lines.append(f"| {architecture} | {' | '.join(cells)} |")
    whys = [(a, t, c.why) for a in ARCHITECTURES for t in TASKS if (c := table.get((a, t))) and c.why]
    if whys:
        lines += ["", "## Why not", "", "| architecture | task | why |", "| --- | --- | --- |"]
        lines += [f"| {architecture} | {task} | {why} |" for architecture, task, why in whys]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
