from __future__ import annotations

import pytest

from repo_builder.errors import TensorRTError
from repo_builder.tensorrt import versions


@pytest.mark.parametrize(
    ("plan", "runtime", "compatible", "loads"),
    [
        ("8.6.1.6", "8.6.1.6", False, True),
        ("8.6.1", "8.6.1.6", False, True),
        ("8.6.1.6", "8.6.3.1", False, False),
        ("8.6.1.6", "8.6.3.1", True, True),
        ("10.0.1", "10.16.0.72", True, True),
        ("10.16.0.72", "10.0.1", True, False),
        ("8.6.1", "10.0.1", True, True),
        ("8.6.1", "11.0.0", True, False),
        ("8.5.3", "8.6.1", True, False),
        ("10.0.1", "10.0.1.6", False, True),
        ("10.3.0.26", "10.3.0", False, True),
        ("10.3.0", "9.3.0.post12.dev1", False, False),
        ("8", "8.6.1", False, False),
        ("", "8.6.1", True, False),
    ],
)
def test_a_plan_is_loaded_by_its_version_or_by_its_major(plan: str, runtime: str, compatible: bool, loads: bool):
    assert versions.loads(plan, runtime, version_compatible=compatible) is loads


def test_releases_that_load_a_plan_come_from_the_table():
    assert versions.releases_for("8.6.3.1") == ("24.02", "24.03", "24.04")
    assert versions.releases_for("10.0.1") == ("24.05",)
    assert versions.releases_for("8.6.1.6") == ()
    assert versions.releases_for("8.6.1.6", version_compatible=True) == ("24.02", "24.03", "24.04", "24.05", "26.03")
    ten = versions.releases_for("10.3.0.26", version_compatible=True)
    assert "26.03" in ten
    assert "24.05" not in ten, "an older runtime of the same major"
    assert "24.04" not in ten
    unknown = versions.releases_unknown()
    assert set(unknown).isdisjoint({"24.02", "24.05", *ten})


def test_what_each_version_can():
    old, new, rtx = (
        versions.abilities(*told) for told in (("tensorrt", "8.6.1"), ("tensorrt", "11.0.0"), ("tensorrt_rtx", "1.7.1"))
    )
    assert (old.strongly_typed, old.max_opset, old.int64, old.timing_cache) == (False, 17, False, True)
    assert old.precisions == ("fp32", "tf32", "fp16", "int8")
    assert (new.strongly_typed, new.max_opset, new.int64, new.compatible_plans) == (True, None, True, True)
    assert (rtx.strongly_typed, rtx.timing_cache, rtx.compatible_plans) == (True, False, False)
    with pytest.raises(TensorRTError, match=r"TensorRT 8\.5\.3 is too old"):
        versions.abilities("tensorrt", "8.5.3")


@pytest.mark.parametrize(("precision", "mend"), [("bf16", "take fp16"), ("fp8", "take int8")])
def test_8_6_has_neither_bf16_nor_fp8(precision: str, mend: str):
    with pytest.raises(TensorRTError) as caught:
        versions.check_precision("tensorrt", "8.6.1", precision)
    assert caught.value.found == f"TensorRT 8.6.1 has no precision {precision}"
    assert caught.value.expected == "one of fp32, tf32, fp16, int8"
    assert mend in caught.value.mend
    versions.check_precision("tensorrt", "10.3.0", precision)


def test_the_parser_of_8_6_ends_at_opset_17():
    versions.check_opset("tensorrt", "8.6.1", 17, "model.onnx")
    versions.check_opset("tensorrt", "10.3.0", 21, "model.onnx")
    with pytest.raises(TensorRTError) as caught:
        versions.check_opset("tensorrt", "8.6.1", 18, "model.onnx")
    assert caught.value.found == "model.onnx has opset 18, and the ONNX parser of TensorRT 8.6.1 ends at 17"
    assert "onnx.version_converter" in caught.value.mend


def test_compatible_plans_are_refused_where_a_version_makes_none() -> None:
    with pytest.raises(TensorRTError, match=r"TensorRT-RTX 1\.7\.1\.116 makes no version-compatible plans"):
        versions.check_compatible(
            "tensorrt_rtx", "1.7.1.116", {"version_compatible": True, "hardware_compatible": True}
        )
    with pytest.raises(TensorRTError, match="makes no hardware-compatible plans") as caught:
        versions.check_compatible("tensorrt_rtx", "1.7.1.116", {"hardware_compatible": True})
    assert caught.value.mend == "leave tensorrt.hardware_compatible out, or build with TensorRT"
    for version in ("8.6.1", "10.3.0", "11.1.0"):
        versions.check_compatible("tensorrt", version, {"version_compatible": True, "hardware_compatible": True})
    versions.check_compatible("tensorrt_rtx", "1.7.1.116", {"version_compatible": False})


def test_a_release_whose_tensorrt_is_unknown_is_said() -> None:
    (unknown, *_) = versions.releases_unknown()
    assert versions.unchecked(unknown, "8.6.1") == (
        f"which TensorRT release {unknown} carries is not known: whether it loads this plan of TensorRT 8.6.1 was "
        "not checked"
    )
    assert versions.unchecked("24.02", "8.6.1") == ""
