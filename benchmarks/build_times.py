"""The time of a build, of one with nothing to do, and of what people write by hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BARE_EXPORT = """
import torch, sentence_transformers
st = sentence_transformers.SentenceTransformer({model!r}, device="cpu", local_files_only=True)
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
torch.onnx.export(Head().eval(), (ids, ids, ids), {path!r}, dynamo=True, external_data=False, verbose=False,
                  opset_version=20, dynamic_shapes=(dims, dims, dims))
"""
"""The encoder and its pooling through torch.onnx.export, and nothing checked."""

LABELS = {
    "bare_export": "bare `torch.onnx.export`, nothing checked",
    "build_unverified": "`build --no-verify`: convert, check, plan, reference",
    "build_proven": "`build`: the same, served and proven",
    "noop": "`build` again, nothing to do",
}


def build(model: Path, out: Path, cpus: int, *flags: str) -> None:
    command = [sys.executable, "-c", "from repo_builder.cli import main; main()", "build", str(model)]
    command += ["--name", "minilm"]
    command += ["--task", "sentence-embedding", "--cpus", str(cpus), "--out", str(out), "--quiet", *flags]
    subprocess.run(command, check=True, capture_output=True)


def bare_export(model: Path, out: Path) -> None:
    code = BARE_EXPORT.format(model=str(model), path=str(out))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def measure(model: Path, folder: Path, cpus: int) -> dict[str, float]:
    """Seconds by key of ``LABELS``; leaves ``folder/model_repository``, proven."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        build(model, scratch / "warm", cpus)  # makes the server's environment, fills the disk cache
        return {
            "bare_export": timed(lambda: bare_export(model, scratch / "bare.onnx")),
            "build_unverified": timed(lambda: build(model, scratch / "unverified", cpus, "--no-verify")),
            "build_proven": timed(lambda: build(model, folder / "model_repository", cpus)),
            "noop": timed(lambda: build(model, folder / "model_repository", cpus)),
        }


def timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
