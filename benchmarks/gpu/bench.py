"""Plans on this machine's GPU: built, inspected, compared with PyTorch, timed against it, and served.

    python benchmarks/gpu/bench.py [--models resnet50,bert_base,minilm] [--precisions fp16,tf32,fp32,int8]
                                   [--keep-fp32 bert_base=node_add_*,LayerNormalization]
                                   [--folder build/gpu] [--minilm FOLDER] [--page docs/benchmarks.md]

Needs a Python with repo-builder, a CUDA PyTorch, torchvision, transformers and sentence-transformers, and TensorRT in
it or in the one that REPO_BUILDER_TENSORRT_PYTHON names. ResNet-50 and BERT-base have seeded random weights; MiniLM's
are real.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import models
import numpy as np
import report
import served

from repo_builder import pipeline
from repo_builder.compare import compare
from repo_builder.convert import torch_to_onnx
from repo_builder.formats import tensorrt_plan
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensorrt import installation, performance
from repo_builder.tensors import TensorSpec

BATCHES = (1, 8, 32)
SAMPLES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,bert_base,minilm")
    parser.add_argument("--precisions", default="fp16,tf32,fp32,int8")
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"))
    parser.add_argument("--minilm", help="its folder or hub id", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument(
        "--keep-fp32", action="append", default=[], metavar="MODEL=NODES", help="nodes of its fp16 plan kept in float32"
    )
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch's own times out")
    parser.add_argument("--page", type=Path, help="a page with markers to put the tables into")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "gpu.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    machine = _machine()
    if results.get("machine") != machine:  # figures of another GPU or version stand in no table of this one
        results = {"machine": machine}
    for name in options.models.split(","):
        done = results.setdefault(name, {})
        done.setdefault("torch", [])
        if not options.no_torch:  # first, as what the plans are held against: a run that is cut short keeps it
            done["torch"] = _torch(name, options.minilm)
            kept.write_text(json.dumps(results, indent=1))
        for precision in options.precisions.split(","):
            print(f"{name} {precision}", file=sys.stderr, flush=True)
            try:
                made = _minilm(options, precision) if name == "minilm" else _tensors(name, options, precision)
            except Exception as error:  # noqa: BLE001 (one failure must not cost the other figures)
                made = {"failed": f"{type(error).__name__}: {error}"}
            done[precision] = made
            kept.write_text(json.dumps(results, indent=1))
    page = report.tables(results)
    print(page)
    if options.page:
        report.into(options.page, page)


def _machine() -> dict[str, Any]:
    import torch

    found = installation.builder()
    gpu = found.gpu
    assert gpu is not None
    return {"gpu": gpu.name, "driver": gpu.driver, "tensorrt": found.called, "torch": torch.__version__}


def _exported(name: str, model: models.Model, folder: Path, opset: int) -> Path:
    """The module's file; where it is kept from an earlier run, so are the weights, which the module then gets.

    Weights that are made anew (statistics of BatchNorm, on this GPU) are not bit for bit those of the file.
    """
    import torch

    path, weights = folder / f"{name}.onnx", folder / f"{name}.pt"
    if path.is_file() and weights.is_file():
        model.module.load_state_dict(torch.load(weights, weights_only=True))
    else:
        specs = tuple(TensorSpec(n, dtype, shape) for n, (dtype, shape) in model.inputs.items())
        examples = tuple(torch.from_numpy(array) for array in model.arrays(2, padded=False).values())
        program = TorchProgram(model.module.cpu().float(), "eager", specs, model.outputs, examples)
        torch_to_onnx.convert(program, path, opset=opset, ir_version=8, exporter=None, progress=None)
        torch.save(model.module.state_dict(), weights)
    return path


def _tensors(name: str, options: argparse.Namespace, precision: str) -> dict[str, Any]:
    model = models.MODELS[name]()
    folder = options.folder
    path = _exported(name, model, folder, opset=17)
    samples = []
    for number in range(SAMPLES):
        file = folder / f"{name}-{number}.npz"
        np.savez(file, **model.arrays(1, seed=100 + number))
        samples.append(str(file))
    shapes = {a: dict(zip(("min", "opt", "max"), sizes, strict=True)) for a, sizes in model.ranges.items()}
    spec = {
        "source": str(path),
        "name": f"{name}_{precision}",
        "engine": "tensorrt",
        "precision": precision,
        "shapes": shapes,
        "samples": {"arrays": samples},
        "tolerances": {"*": {"max_rel_error": 0.5 if precision == "int8" else 2e-2}},
    }
    if precision == "fp16" and (kept := dict(k.split("=", 1) for k in options.keep_fp32).get(name)):
        spec["tensorrt"] = {"keep_fp32": kept.split(",")}
    file = folder / f"{name}-{precision}.yaml"
    file.write_text(json.dumps({"models": [spec]}))
    repository = folder / "repository"
    started = time.perf_counter()
    result = pipeline.build(file, repository, verify=name == "bert_base", progress=_say)
    took = time.perf_counter() - started
    result.raise_failed()
    plan = repository / spec["name"] / "1" / "model.plan"
    artifact = tensorrt_plan.describe(plan)
    errors = {}
    arrays = model.arrays(8, seed=7)
    asked = {t.name: arrays[t.name].astype(t.numpy) for t in artifact.inputs}
    answers = tensorrt_plan.run(artifact, asked)
    exact, half = model.answers(arrays), model.answers(arrays, half=True)
    for output, source, rounded in zip(model.outputs, exact, half, strict=True):
        found = compare(answers[output].astype(np.float32), source, "batch 8")
        errors[output] = {
            "max_rel_error": found.max_rel_error,
            "cosine": found.cosine,
            "problem": found.problem,
            "pytorch_fp16": compare(rounded, source, "batch 8").max_rel_error,
        }
    done = {
        "build": result.reports[spec["name"]],
        "seconds": took,
        "kept_fp32": spec.get("tensorrt", {}).get("keep_fp32", []),
        "errors": errors,
        "performance": _timed(plan),
    }
    if name == "bert_base" and precision == "fp16":
        batch = model.arrays(32)
        wanted = {t.name: batch[t.name].astype(t.numpy) for t in artifact.inputs}
        done["served"] = [served.throughput(repository, spec["name"], wanted, clients=n) for n in (1, 2, 4, 8)]
    return done


def _timed(plan: Path) -> dict[str, Any]:
    """The plan's times with and without a CUDA graph; token ids as long as PyTorch's."""
    shapes = {t.name: (1, models.SEQUENCE) for t in tensorrt_plan.describe(plan).inputs if len(t.shape) == 2}
    timed = {}
    for graph in (False, True):
        measured = performance.measure(
            installation.builder(), plan, batches=BATCHES, duration_s=1, cuda_graph=graph, shapes=shapes
        )
        timed["graph" if graph else "plain"] = measured.as_json()
    return timed


def _torch(name: str, minilm: str) -> list[dict[str, Any]]:
    import torch_times

    print(f"{name} PyTorch", file=sys.stderr, flush=True)
    return torch_times.times(models.minilm(minilm) if name == "minilm" else models.MODELS[name](), BATCHES)


def _minilm(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    started = time.perf_counter()
    result = pipeline.build(
        options.minilm,
        options.folder / f"minilm_{precision}",
        name="minilm",
        task="sentence-embedding",
        engine="tensorrt",
        precision=precision,
        tensorrt={"keep_fp32": "measure"} if precision == "int8" else {},
        progress=_say,
    )
    took = time.perf_counter() - started
    report_ = result.reports.get("minilm")
    if report_ is None:
        result.raise_failed()
    plan = options.folder / f"minilm_{precision}" / "minilm_encoder" / "1" / "model.plan"
    failed = [str(error) for error in result.failed.values()]
    timed = _timed(plan) if plan.is_file() else {}
    return {"build": report_, "seconds": took, "performance": timed, "why": failed}


def _say(model: str, what: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {model}: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
