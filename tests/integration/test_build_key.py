"""The build key tells builds apart, and the facts beside it say what was built; no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder import releases, spec
from repo_builder.pipeline import unit
from tests import models

pytestmark = pytest.mark.torch
TWO = models.FACTORY + "\n\ndef another():\n    torch.manual_seed(9)\n    return factory()\n"


def key(source: str) -> str:
    model = spec.from_flags(source, name="m").models[0]
    return unit.key(model, unit.describe(model), releases.newest(), "tensors")


def test_another_factory_of_the_same_file_is_another_build(tmp_path: Path) -> None:
    path = models.factory_module(tmp_path / "made.py", TWO)
    assert key(f"{path}:factory") == key(f"{path}:factory")
    assert key(f"{path}:factory") != key(f"{path}:another")


def test_a_source_that_changes_while_it_is_built_keeps_the_key_of_what_was_described(tmp_path: Path) -> None:
    path = models.linear_onnx(tmp_path / "linear.onnx")
    model = spec.from_flags(str(path), name="m").models[0]
    source = unit.describe(model)
    before, digest = key(str(path)), source.digest()

    def change(_model: str, what: str) -> None:
        if what == "reference":
            models.linear_onnx(path, seed=1)

    (tmp_path / "work").mkdir()
    made = unit.make(model, source, releases.newest(), tmp_path / "work", change)
    assert key(str(path)) != before
    assert made.key == before
    assert made.facts["source"]["sha256"] == digest


def test_the_reference_names_who_ran_the_file(tmp_path: Path) -> None:
    onnx = models.linear_onnx(tmp_path / "linear.onnx")
    script = models.torchscript(tmp_path / "scripted.pt")
    inputs = [{"name": "input", "dtype": "FP32", "shape": ["batch", 4]}]
    found = []
    for source, fields in ((onnx, {}), (script, {"engine": "torchscript", "inputs": inputs})):
        model = spec.from_flags(str(source), name="m", **fields).models[0]
        work = tmp_path / f"{source.name}.work"
        work.mkdir()
        found.append(unit.make(model, unit.describe(model), releases.newest(), work, lambda *_: None).proof.reference)
    assert found == [
        "the onnx file itself, in ONNX Runtime in process",
        "the torchscript file itself, in PyTorch in process",
    ]
