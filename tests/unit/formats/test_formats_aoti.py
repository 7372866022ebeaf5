"""AOTInductor packages, looked at without torch: nothing of them is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from repo_builder import formats
from repo_builder.errors import ConversionError, RepoBuilderError, SignatureError, SourceCorruptError
from repo_builder.formats import aoti
from repo_builder.pipeline import serving
from repo_builder.tensors import TensorSpec

TOLD = {"AOTI_DEVICE_KEY": "cpu", "AOTI_MACHINE": "mill", "AOTI_CPU_ISA": "AVX2", "AOTI_COMPUTE_CAPABILITY": ""}
INPUTS = [TensorSpec("INPUT__1", "INT64", ("rows",)), TensorSpec("INPUT__0", "FP32", ("rows", 4))]


def package(folder: Path, told: dict[str, str] = TOLD, model: str = "model") -> Path:
    path = folder / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr(f"net/data/aotinductor/{model}/c1.wrapper.so", b"\x7fELF no code")
        for part in ("c1.wrapper", "c2.kernel"):
            archive.writestr(f"net/data/aotinductor/{model}/{part}_metadata.json", json.dumps(told))
            told = {**told, **({"AOTI_CPU_ISA": told["second"]} if "second" in told else {})}
    return path


def test_a_package_is_told_from_a_program_of_the_same_suffix(tmp_path: Path) -> None:
    path = package(tmp_path)
    assert formats.detect(str(path)) == ("aoti", path)
    program = tmp_path / "program.pt2"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("program/models/model.json", "{}")
    assert formats.detect(str(program))[0] == "exported_program"
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RepoBuilderError) as caught:
        formats.get(formats.detect(str(cut))[0]).describe(cut)
    assert "is no whole zip archive" in caught.value.found


def test_inputs_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = aoti.describe(package(tmp_path), INPUTS)
    assert list(map(str, found.inputs)) == ["INPUT__0 FP32[rows, 4]", "INPUT__1 INT64[rows]"]
    assert found.facts["compiled"] == {"device": "cpu", "machine": "mill", "cpu_isa": "AVX2"}


@pytest.mark.parametrize("names", [["x"], ["INPUT__1"], ["INPUT__0", "INPUT__2"], ["INPUT__0", "INPUT__0"]])
def test_inputs_go_by_place(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SignatureError) as caught:
        aoti.describe(package(tmp_path), [TensorSpec(name, "FP32", (4,)) for name in names])
    assert ", ".join(names) in caught.value.found
    assert caught.value.expected.startswith("INPUT__0, INPUT__1")


def test_a_package_that_cannot_run_here_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        aoti.opened(aoti.describe(package(tmp_path), INPUTS))
    assert caught.value.found == "net.pt2 was compiled for linux mill"
    with pytest.raises(SignatureError) as unknown:
        aoti.opened(aoti.describe(package(tmp_path)))
    assert "{name: INPUT__0, dtype: FP32, shape: [batch, 4]}" in unknown.value.mend
    with pytest.raises(ConversionError) as gpu:
        aoti.describe(package(tmp_path, {"AOTI_DEVICE_KEY": "cuda", "AOTI_COMPUTE_CAPABILITY": "90"}), INPUTS)
    assert gpu.value.found.endswith("net.pt2 was compiled for cuda 90")


def test_a_package_must_hold_the_model_that_triton_loads(tmp_path: Path) -> None:
    with pytest.raises(SourceCorruptError) as caught:
        aoti.describe(package(tmp_path, model="encoder"))
    assert caught.value.found.endswith("net.pt2 holds the models encoder")
    with pytest.raises(SourceCorruptError) as both:
        aoti.describe(package(tmp_path, {**TOLD, "second": "AVX512"}))
    assert "was compiled for both AVX2 and AVX512 (AOTI_CPU_ISA)" in both.value.found


def test_the_embedded_server_sees_the_platform_under_the_stand_ins_own_backend(tmp_path: Path) -> None:
    for name, text in {"net": 'backend: "pytorch"\nplatform: "torch_aoti"\n', "other": 'backend: "python"\n'}.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(text, encoding="utf-8")
    with serving.as_embedded_knows(tmp_path, []) as (shown, left_out):
        assert shown != tmp_path
        assert not left_out
        found = serving.configs(shown)
        assert (found["net"].backend, found["net"].platform) == ("torch_aoti", "torch_aoti")
        assert found["other"].backend == "python"
        assert (shown / "net" / "1").resolve() == (tmp_path / "net" / "1").resolve()
    assert 'backend: "pytorch"' in (tmp_path / "net" / "config.pbtxt").read_text()
