"""Small units of a repository for the writer's tests: a plain model, or an ensemble with two members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput

from repo_builder.planned import Content, PlannedModel
from repo_builder.proof import Case, Proof
from repo_builder.repository.plan import Unit


def config(name: str, *, width: int = 4, batch: int = 8, backend: str = "onnxruntime") -> ModelConfig:
    return ModelConfig(
        name=name,
        backend="" if backend == "ensemble" else backend,
        platform="ensemble" if backend == "ensemble" else "",
        max_batch_size=batch,
        input=[ModelInput(name="x", data_type=DataType.TYPE_FP32, dims=[width])],
        output=[ModelOutput(name="y", data_type=DataType.TYPE_FP32, dims=[2])],
    )


def proof(name: str, value: float = 1.0) -> Proof:
    arrays = {"x": np.full((1, 4), value, np.float32)}
    return Proof(name, (Case(arrays, {"y": np.zeros((1, 2), np.float32)}),), reference="numpy")


def plain(name: str, content: Content, *, key: str = "", width: int = 4, proven: bool = False) -> Unit:
    """One model with one file and labels."""
    model = PlannedModel(config(name, width=width), {"model.onnx": content}, {"labels.txt": b"cat\ndog\n"})
    return Unit(name, key or f"key of {name}", (model,), proof(name) if proven else None, {"task": "tensors"})


def ensemble(name: str, content: Content, *, key: str = "", value: float = 1.0) -> Unit:
    """An empty ensemble, a Python tokenizer with a folder of its own, and a model; with a proof."""
    models = (
        PlannedModel(config(name, backend="ensemble")),
        PlannedModel(
            config(f"{name}_tokenizer", backend="python"), {"model.py": b"# tokenize\n", "lib/t.so": b"\x7fELF"}
        ),
        PlannedModel(config(f"{name}_model"), {"model.onnx": content}),
    )
    return Unit(name, key or f"key of {name}", models, proof(name, value), {"task": "sentence-embedding"})


def listing(folder: Path) -> dict[str, bytes | str]:
    """Every path below a folder with its content: bytes of files, targets of links, ``"/"`` for folders."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = "/" if path.is_dir() else path.read_bytes()
    return found
