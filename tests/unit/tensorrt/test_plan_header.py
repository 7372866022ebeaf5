from __future__ import annotations

import struct
from pathlib import Path

import pytest

from repo_builder import formats
from repo_builder.errors import SourceCorruptError, SourceMissingError
from repo_builder.formats import tensorrt_plan
from repo_builder.tensorrt import plan_header


def plan(path: Path, magic: bytes, version: tuple[int, int, int, int], size: int = 64) -> Path:
    """A head as plans have it, and zeros."""
    head = magic + bytes(4) + struct.pack("<QQ", 1, size) + bytes(version)
    path.write_bytes(head + bytes(64 - len(head)))
    return path


def test_the_head_tells_module_and_version(tmp_path: Path):
    assert plan_header.read(plan(tmp_path / "a.plan", b"ftrt", (8, 6, 1, 6))) == plan_header.PlanHeader(
        "tensorrt", "8.6.1.6"
    )
    rtx = plan_header.read(plan(tmp_path / "b.plan", b"vtrt", (1, 7, 1, 116)))
    assert rtx == plan_header.PlanHeader("tensorrt_rtx", "1.7.1.116")
    assert plan_header.read(plan(tmp_path / "c.plan", b"ftrt", (0, 0, 0, 0))).version is None


def test_what_is_no_plan_or_was_cut_off_is_refused(tmp_path: Path):
    (tmp_path / "zip.plan").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(SourceCorruptError, match=r"zip.plan is no TensorRT plan: it begins with b'PK"):
        plan_header.read(tmp_path / "zip.plan")
    (tmp_path / "short.plan").write_bytes(b"ftrt" + bytes(8))
    with pytest.raises(SourceCorruptError, match=r"short.plan is cut off: it has 12 bytes\n"):
        plan_header.read(tmp_path / "short.plan")
    with pytest.raises(SourceCorruptError) as caught:
        plan_header.read(plan(tmp_path / "half.plan", b"vtrt", (1, 7, 1, 116), size=1000))
    assert caught.value.found.endswith("half.plan is cut off: it has 64 bytes of 1000")


def test_is_plan_looks_at_the_first_bytes(tmp_path: Path):
    assert plan_header.is_plan(plan(tmp_path / "a", b"ftrt", (10, 3, 0, 26)))
    (tmp_path / "b").write_bytes(b"onnx")
    assert not plan_header.is_plan(tmp_path / "b")
    assert not plan_header.is_plan(tmp_path / "none")


def test_without_tensorrt_a_plan_is_described_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("repo_builder.tensorrt.installation.find", lambda: None)
    path = plan(tmp_path / "model.plan", b"ftrt", (8, 6, 3, 1))
    assert formats.detect(str(path)) == ("tensorrt_plan", path)
    artifact = tensorrt_plan.describe(path)
    assert (artifact.inputs, artifact.outputs, artifact.files) == ((), (), ("model.plan",))
    assert artifact.facts["tensorrt"] == "8.6.3.1"
    assert artifact.facts["releases"] == ["24.02", "24.03", "24.04"]
    assert artifact.facts["opened"] is False
    assert artifact.facts["not_opened"] == "TensorRT is not installed here; only the plan's header was read"


def test_a_plan_of_rtx_is_said_to_be_served_nowhere(tmp_path: Path):
    facts = tensorrt_plan.describe(plan(tmp_path / "model.engine", b"vtrt", (1, 7, 1, 116))).facts
    assert facts["not_opened"] == "it is a plan of TensorRT-RTX, which Triton does not serve"
    assert (facts["releases"], facts["releases_if_version_compatible"]) == ([], [])


def test_an_empty_or_missing_plan_is_refused_as_other_files_are(tmp_path: Path):
    (tmp_path / "empty.plan").touch()
    with pytest.raises(SourceCorruptError, match="is empty"):
        tensorrt_plan.describe(tmp_path / "empty.plan")
    with pytest.raises(SourceMissingError):
        tensorrt_plan.describe(tmp_path / "none.plan")
