"""``inspect`` of a model, a spec and a repository: the same rows for tensors everywhere."""

from __future__ import annotations

from pathlib import Path

from repo_builder import pipeline
from tests import models

X = {"name": "x", "dtype": "FP32", "shape": ["batch", 4]}
Y = {"name": "y", "dtype": "FP32", "shape": ["batch", 3]}


def test_a_model(tmp_path: Path) -> None:
    found = pipeline.inspect(str(models.linear_onnx(tmp_path / "linear.onnx")))
    assert (found["format"], found["inputs"], found["outputs"]) == ("onnx", [X], [Y])
    assert found["bytes"] == (tmp_path / "linear.onnx").stat().st_size


def test_a_spec(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    (tmp_path / "spec.yaml").write_text("models: [{source: linear.onnx, name: one}]\n", encoding="utf-8")
    assert pipeline.inspect(str(tmp_path / "spec.yaml")) == {
        "spec": "spec.yaml",
        "models": [{"name": "one", "format": "onnx", "task": "tensors", "inputs": [X], "outputs": [Y]}],
    }


def test_a_repository(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    pipeline.build(tmp_path / "linear.onnx", tmp_path / "r", verify=False).raise_failed()
    found = pipeline.inspect(str(tmp_path / "r"))
    assert found == {
        "repository": "r",
        "models": [{"name": "linear", "backend": "onnxruntime", "inputs": [X], "outputs": [Y]}],
    }
