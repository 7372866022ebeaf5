"""A framework's model to ONNX: names, shapes and answers, and converters that lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy_framework
import onnx
import pytest

from repo_builder import formats, spec
from repo_builder.artifact import Artifact
from repo_builder.convert import framework_to_onnx
from repo_builder.errors import ConversionError, FrameworkError
from repo_builder.formats import framework_process
from repo_builder.formats import onnx as onnx_format
from repo_builder.tasks import plain_tensors
from repo_builder.tensors import TensorSpec


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(formats.FORMATS, "numpy_json", "numpy_framework")
    yield
    framework_process.close_all()


def source(tmp_path: Path, **more: Any) -> Artifact:
    return formats.opened(numpy_framework.describe(numpy_framework.save(tmp_path / "a.npmodel", **more)))


def convert(tmp_path: Path, opset: int = 20, **more: Any) -> Artifact:
    (tmp_path / "out").mkdir()
    return framework_to_onnx.convert(
        source(tmp_path, **more), tmp_path / "out" / "model.onnx", opset=opset, ir_version=10
    )


def test_the_file_has_the_served_names_and_answers_as_the_framework(tmp_path: Path) -> None:
    made = convert(tmp_path)
    assert made.inputs == (TensorSpec("x", "FP32", ("batch", 3)),)
    assert made.outputs == (TensorSpec("net_y_1", "FP32", ("batch", 2)),)
    assert made.facts["opset"] == 17, "what its converter writes best, where the target takes more"
    assert made.provenance["exporter"] == "numpy-json"
    assert made.provenance["notes"] == ["written by hand"]
    assert made.provenance["cases"] >= 5
    x = np.ones((4, 3), np.float32)
    wanted = numpy_framework.run(source(tmp_path), {"x": x})["net_y_1"]
    np.testing.assert_allclose(onnx_format.run(made, {"x": x})["net_y_1"], wanted, rtol=1e-6)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(made.path), full_check=True)


def test_a_target_of_an_older_opset_gets_it(tmp_path: Path) -> None:
    assert convert(tmp_path, opset=13).facts["opset"] == 13


def test_a_converter_that_lies_is_caught(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"the file answers differently: max abs error .* at output net_y_1"):
        convert(tmp_path, converted=[[1, 2], [3, 4], [5, 6]])
    assert list((tmp_path / "out").iterdir()) == []


def test_how_far_apart_the_frameworks_own_answers_are_is_allowed_and_told(tmp_path: Path) -> None:
    """A sine of large sums: their last bit decides. The same sums with weights of another last bit are as right."""
    right = np.random.default_rng(0).standard_normal((3, 2)).round(3)
    made = convert(tmp_path, sharp=500.0, converted=(right * (1 + 2.0**-22)).tolist())
    share = made.provenance["rounding"]["net_y_1"]
    assert 1e-4 < share < 1e-2
    assert made.provenance["notes"][-1] == (
        f"output net_y_1: numpy-json's own answers with its sums in two orders are up to {share:.1e} of their largest"
        " apart, so that much more is allowed"
    )
    model = spec.from_flags(str(tmp_path / "a.npmodel")).models[0]
    proof = plain_tensors.proof(model, source(tmp_path, sharp=500.0), made, None)
    assert proof.tolerances["net_y_1"].max_rel_error == pytest.approx(1e-4 + share)
    assert "rounding" not in convert(_folder(tmp_path / "b"), sharp=1.0).provenance
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        convert(_folder(tmp_path / "c"), sharp=500.0, converted=(right * (1 + 2.0**-17)).tolist())
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        convert(_folder(tmp_path / "d"), sharp=1e7, converted=(right * (1 + 2.0**-22)).tolist())


def test_indices_are_compared_and_proved_over_the_whole_table(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((3, 2)).round(3)
    made = convert(tmp_path, lookup=3)
    assert made.provenance["ranges"] == {"x": (0, 2)}
    model = spec.from_flags(str(tmp_path / "a.npmodel")).models[0]
    proof = plain_tensors.proof(model, source(tmp_path, lookup=3), dataclasses.replace(made, batch="batch"), None)
    assert any(case.inputs["x"].max() > 1 for case in proof.cases)
    wrong = [*table[:2].tolist(), [0, 0]]
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        convert(_folder(tmp_path / "b"), lookup=3, converted=wrong)
    refused = convert(_folder(tmp_path / "c"), lookup=2, converted=wrong)
    assert "ranges" not in refused.provenance
    assert refused.provenance["notes"][-1] == (
        "input x: compared on 0 and 1 alone, for nothing tells which integers it takes"
    )


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_framework_that_dies_on_a_case_is_told(tmp_path: Path) -> None:
    with pytest.raises(FrameworkError, match="was killed by SIGSEGV"):
        convert(tmp_path, run="crash")


def test_the_proof_names_who_answered(tmp_path: Path) -> None:
    model = spec.from_flags(str(numpy_framework.save(tmp_path / "a.npmodel"))).models[0]
    made = convert(tmp_path)
    proof = plain_tensors.proof(model, source(tmp_path), made, None)
    assert proof.reference == "the numpy_json file itself, in numpy, in a process of its own"
    assert len(proof.cases) == 8


def test_what_the_worker_makes_of_its_model_is_what_is_compared_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[[0.5, 1, 2]], [[1, 2, 3], [4, 5, 6]]]
    made = convert(tmp_path, examples=rows)
    assert made.provenance["cases"] == 2
    right = np.random.default_rng(0).standard_normal((3, 2)).round(3)
    wrong = (right + np.array([[0, 0], [0, 0], [1, 0]])).tolist()
    (tmp_path / "again").mkdir()
    (tmp_path / "zero").mkdir()
    with pytest.raises(ConversionError, match="the file answers differently"):
        convert(tmp_path / "again", converted=wrong, examples=rows)
    assert convert(tmp_path / "zero", converted=wrong, examples=[[[1, 1, 0]]]).provenance["cases"] == 1

    told = source(tmp_path, examples=rows)
    model = spec.from_flags("a.npmodel").models[0]
    batched = dataclasses.replace(made, batch="batch")
    assert len(plain_tensors.proof(model, told, batched, None).cases) == 8, "seeded tensors"
    monkeypatch.setattr(numpy_framework, "examples", framework_examples, raising=False)
    cases = plain_tensors.proof(model, told, batched, None).cases
    assert [case.inputs["x"].tolist() for case in cases] == [[[0.5, 1, 2]], [[1, 2, 3]], [[4, 5, 6]]]


def framework_examples(artifact: Artifact) -> list[dict[str, np.ndarray[Any, Any]]]:
    return framework_process.of(numpy_framework.FRAMEWORK, artifact).examples()
