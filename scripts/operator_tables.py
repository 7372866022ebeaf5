"""Write repo_builder/formats/onnx_operators.json: what ONNX Runtime's CUDA provider and TensorRT say that they run.

    python scripts/operator_tables.py cuda VERSION COMMIT OperatorKernels.md   of microsoft/onnxruntime, docs/
    python scripts/operator_tables.py tensorrt VERSION COMMIT operators.md     of onnx/onnx-tensorrt, docs/

Each call adds or replaces one version. ONNX Runtime's page is generated from the registered kernels.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "repo_builder" / "formats" / "onnx_operators.json"
PAGES = {
    "cuda": ("microsoft/onnxruntime", "docs/OperatorKernels.md"),
    "tensorrt": ("onnx/onnx-tensorrt", "docs/operators.md"),
}


def cuda(page: str, types: list[list[str]]) -> dict[str, Any]:
    """``{domain: {operator: [[first opset, last or null, {type parameter: index into types}], ...]}}``."""
    section = page.split("## Operators implemented by CUDAExecutionProvider", 1)[1].split("\n## ", 1)[0]
    found: dict[str, Any] = {}
    domain = operator = ""
    for line in section.splitlines():
        if head := re.match(r"\|\*\*Operator Domain:\*\* \*([^*]+)\*", line):
            domain = "" if head[1] == "ai.onnx" else head[1]
            continue
        cells = [cell.strip() for cell in line.strip().strip("\n").split("|")[1:-1]]
        opsets = re.fullmatch(r"(\d+)\+|\[(\d+), (\d+)\]|(\d+)", cells[2]) if len(cells) == 4 else None
        if opsets is None:
            continue
        operator = cells[0] or operator
        first = int(opsets[1] or opsets[2] or opsets[4])
        last = None if opsets[1] else int(opsets[3] or opsets[4])
        found.setdefault(domain, {}).setdefault(operator, []).append([first, last, _types(cells[3], types)])
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _types(cell: str, types: list[list[str]]) -> dict[str, int]:
    made = {}
    for name, listed in re.findall(r"\*\*(\w+)\*\* = ([^*<]+)", cell):
        one = sorted(part.strip() for part in listed.split(",") if part.strip())
        if one not in types:
            types.append(one)
        made[name] = types.index(one)
    return made


def tensorrt(page: str) -> dict[str, Any]:
    """``{"opsets": last opset, "operators": {operator: [types] or null}, "restrictions": {operator: text}}``."""
    operators: dict[str, Any] = {}
    restrictions: dict[str, str] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 2 or cells[1] not in ("Y", "N"):
            continue
        listed = re.findall(r"[A-Z][A-Z0-9]+", cells[2]) if len(cells) > 2 else []
        operators[cells[0]] = sorted(set(listed)) if cells[1] == "Y" else None
        if cells[1] == "Y" and len(cells) > 3 and cells[3]:
            restrictions[cells[0]] = re.sub(r"<br ?/?>", "; ", cells[3]).replace("`", "")
    last = re.search(r"[Oo]pset 9 to [Oo]pset (\d+)|up to [Oo]pset (\d+)", page)
    assert last, "the page names no opset"
    return {"opset": int(last[1] or last[2]), "operators": operators, "restrictions": restrictions}


def text(table: dict[str, Any]) -> str:
    """One line per operator, so that a change of version reads well."""

    def lines(value: Any, depth: int) -> str:
        if not isinstance(value, dict) or depth == 4:
            return json.dumps(value, separators=(",", ":"))
        inner = ",\n".join(
            f"{' ' * (depth + 1)}{json.dumps(key)}: {lines(one, depth + 1)}" for key, one in value.items()
        )
        return f"{{\n{inner}\n{' ' * depth}}}" if inner else "{}"

    return lines(table, 0) + "\n"


def main(kind: str, version: str, commit: str, path: str) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    table = {"sources": table.get("sources", {}), "types": table.get("types", {"all": []})} | {
        name: table.get(name, {}) for name in PAGES
    }
    page = Path(path).read_text(encoding="utf-8")
    table[kind][version] = cuda(page, table["types"]["all"]) if kind == "cuda" else tensorrt(page)
    table[kind] = dict(sorted(table[kind].items(), key=lambda one: [int(n) for n in one[0].split(".")]))
    repository, place = PAGES[kind]
    table["sources"][f"{kind} {version}"] = f"{repository} {place}@{commit}"
    table["sources"] = dict(sorted(table["sources"].items()))
    TABLE.write_text(text(table), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
