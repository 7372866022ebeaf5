"""When a build has nothing to do: the key tells builds apart, and the stored proof is the one asked for; no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repo_builder import pipeline, releases, spec
from repo_builder.pipeline import unit
from repo_builder.repository.layout import Layout
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


@pytest.mark.parametrize(
    ("proven_by", "nothing_to_do"),
    [
        ("embedded", {"embedded": True, "docker": False, "127.0.0.1:8001": False}),
        ("docker", {"embedded": True, "docker": True, "127.0.0.1:8001": False}),
        ("url", {"embedded": True, "docker": False, "127.0.0.1:8001": True}),
    ],
)
def test_a_proof_by_another_kind_of_server_is_not_the_one_asked_for(
    tmp_path: Path, proven_by: str, nothing_to_do: dict[str, bool]
) -> None:
    """The stored report is planted: what is tried is which reports leave nothing to do."""
    path, out = models.linear_onnx(tmp_path / "linear.onnx"), tmp_path / "repository"
    pipeline.build(path, out, verify=False).raise_failed()
    report = Layout.of(out).report("linear")
    said = json.loads(report.read_text(encoding="utf-8"))
    report.write_text(json.dumps({**said, "passed": True, "server": {"kind": proven_by}}), encoding="utf-8")
    found = {s: pipeline.build(path, out, server=s, dry_run=True).steps[0].unchanged for s in nothing_to_do}
    assert found == nothing_to_do
    assert pipeline.build(path, out, verify=False, dry_run=True).steps[0].unchanged
