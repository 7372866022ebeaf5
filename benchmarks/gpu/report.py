"""The figures of ``bench.py`` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
_BATCHES = (1, 8, 32)


def tables(results: Mapping[str, Any]) -> str:
    """All tables of one run."""
    machine = results["machine"]
    told = f"{machine['gpu']}, driver {machine['driver']}, {machine['tensorrt']}, PyTorch {machine['torch']}."
    parts = [told]
    for name in ("resnet50", "bert_base"):
        if name in results:
            parts += ["", f"### {name}", "", *_times(results[name]), "", *_accuracy(results[name])]
    if "minilm" in results:
        parts += ["", "### minilm", "", *_times(results["minilm"])]
        parts += ["", "### minilm, the text ensemble served", "", *_minilm(results["minilm"])]
    if served := results.get("bert_base", {}).get("fp16", {}).get("served"):
        parts += [
            "",
            "### bert_base fp16, 32x128 ids, served by the stand-in",
            "",
            *_served(results, served),
        ]
    return "\n".join(parts)


def into(page: Path, text: str) -> None:
    """Put the tables between the page's markers."""
    content = page.read_text(encoding="utf-8")
    before, rest = content.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _times(model: Mapping[str, Any]) -> list[str]:
    lines = ["| what | " + " | ".join(f"batch {b}, ms" for b in _BATCHES) + " |", "| --- |" + " --- |" * len(_BATCHES)]
    for way in dict.fromkeys(one["way"] for one in model.get("torch", [])):
        cells = [f"{one['ms']:.3f}" for one in model["torch"] if one["way"] == way]
        lines.append(f"| PyTorch fp16, {way} | " + " | ".join(cells) + " |")
    for precision, made in _built(model):
        for kind, title in (("plain", ""), ("graph", ", CUDA graph")):
            if kind not in made["performance"]:
                continue
            runs = {run["batch"]: run["compute"]["median"] for run in made["performance"][kind]["runs"]}
            lines.append(f"| plan {precision}{title} | " + " | ".join(f"{runs[b]:.3f}" for b in _BATCHES) + " |")
    return lines


def _accuracy(model: Mapping[str, Any]) -> list[str]:
    lines = [
        "| plan | built in, s | layers | error to PyTorch fp32 / max | cosine |",
        "| --- |" + " --- |" * 4,
    ]
    for precision, made in _built(model):
        layers = ", ".join(f"{n} {k}" for k, n in made["build"]["engine"]["layers"]["by_precision"].items())
        error = _by_output(made, "max_rel_error")
        cosine = min(found["cosine"] for found in made["errors"].values())
        kept = ", ".join(f"`{pattern}`" for pattern in made.get("kept_fp32", []))
        called = f"{precision}, {kept} in fp32" if kept else precision
        lines.append(f"| {called} | {made['build']['engine']['seconds']:.0f} | {layers} | {error} | {cosine:.6f} |")
    if built := _built(model):
        lines.append(f"| PyTorch fp16, eager | | | {_by_output(built[0][1], 'pytorch_fp16')} | |")
    return lines + _failed(model)


def _failed(model: Mapping[str, Any]) -> list[str]:
    return [f"\n{name}: {made['failed'].splitlines()[0]}" for name, made in model.items() if "failed" in made]


def _by_output(made: Mapping[str, Any], key: str) -> str:
    errors = made["errors"]
    return ", ".join(f"{found[key]:.1e}" + (f" ({name})" if len(errors) > 1 else "") for name, found in errors.items())


def _minilm(model: Mapping[str, Any]) -> list[str]:
    lines = [
        "| plan | proven | max error / max | cosine |",
        "| --- |" + " --- |" * 3,
    ]
    for precision, made in _built(model):
        output = made["build"]["outputs"]["EMBEDDING"]
        passed = "yes" if made["build"]["passed"] else "no"
        lines.append(f"| {precision} | {passed} | {output['max_rel_error']:.1e} | {output['cosine']:.6f} |")
    return lines + _failed(model)


def _served(results: Mapping[str, Any], served: list[Mapping[str, Any]]) -> list[str]:
    runs = results["bert_base"]["fp16"]["performance"]["plain"]["runs"]
    bare = next(run["queries_per_second"] for run in runs if run["batch"] == 32)
    lines = ["| clients | requests/s | to the bare plan | p50 / p99 ms |", "| --- |" + " --- |" * 3]
    for one in served:
        rate = one["requests_per_second"]
        lines.append(
            f"| {one['clients']} | {rate:.0f} | {rate / bare:.2f} | {one['p50_ms']:.1f} / {one['p99_ms']:.1f} |"
        )
    return [*lines, "", f"The bare plan: {bare:.0f} batches of 32 a second, copies included."]


def _built(model: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, made) for name, made in model.items() if isinstance(made, dict) and "build" in made]
