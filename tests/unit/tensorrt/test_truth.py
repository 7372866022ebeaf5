"""Plans that are not what was asked for, each in one way."""

from __future__ import annotations

from typing import Any

import pytest

from repo_builder.errors import TensorRTError
from repo_builder.tensorrt import truth
from repo_builder.tensors import TensorSpec

X, Y = TensorSpec("x", "FP32", ("batch", 4)), TensorSpec("y", "FP32", ("batch", 3))
PROFILE = {"x": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}
MEGABYTE = 1 << 20


def layer(precision: str, kind: str = "gemm") -> dict[str, Any]:
    return {"name": "l", "type": kind, "precision": precision, "outputs": [precision], "tactic": "", "moves": False}


def answer(precisions: dict[str, int], **more: Any) -> dict[str, Any]:
    """An answer of build.py whose plan was opened; ``more`` replaces keys of it or of its inspection."""
    listed = [layer(name) for name, count in precisions.items() for _ in range(count)]
    inspection = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4], "is_shape_tensor": False}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 3], "is_shape_tensor": False}],
        "profiles": [PROFILE],
        "layers": {"total": len(listed), "by_precision": precisions, "tf32_tactics": 0, "moves": 0},
        "layer_list": listed,
        "refittable": False,
        "streamable_weights_bytes": 0,
        "stripped_weights_bytes": 0,
        "hardware_compatible": False,
    }
    inspection |= {key: more.pop(key) for key in list(more) if key in inspection}
    made = {
        "flags": [],
        "plan_bytes": MEGABYTE,
        "text": None,
        "network": {"weights": {"FP32": 60}, "types": {}, "compute": {"FP32": 1}, "layers": {"by_precision": {}}},
        "inspection": inspection,
    }
    return {**made, **more}


def check(precision: str, made: dict[str, Any], **request: Any) -> list[str]:
    asked = {"precision": precision, "profiles": [PROFILE], **request}
    return truth.check(asked, made, [X], [Y])


@pytest.mark.parametrize(
    ("precision", "made"),
    [
        ("fp32", answer({"FP32": 3, "INT32": 1})),
        ("tf32", answer({"FP32": 3}, flags=["TF32"])),
        ("fp16", answer({"FP16": 3, "FP32": 1}, flags=["FP16"])),
        ("bf16", answer({"BF16": 3})),
        ("int8", answer({"INT8": 1, "FP32": 5}, flags=["INT8"])),
        ("fp8", answer({"FP8": 2, "FP16": 2})),
        ("fp16", answer({"OPAQUE": 1}, text={"tensors": {"FP16": 9}, "tf32": False})),
        ("fp32", answer({"OPAQUE": 1}, text={"tensors": {"FP32": 9}, "tf32": False})),
    ],
)
def test_a_plan_that_is_as_asked_has_no_problems(precision: str, made: dict[str, Any]):
    assert check(precision, made) == []


@pytest.mark.parametrize(
    ("precision", "made", "problem"),
    [
        ("fp16", answer({"FP32": 3}), "no layer computes in FP16 (3 FP32)"),
        ("fp16", answer({"FP16": 1, "FP32": 3}), "3 convolutions and matrix products compute in FP32 and 1 in FP16"),
        ("bf16", answer({"FP16": 3}), "no layer computes in BF16 (3 FP16)"),
        ("fp8", answer({"FP16": 3}), "no layer computes in FP8 (3 FP16)"),
        ("int8", answer({"FP32": 3}, flags=["INT8"]), "no layer computes in INT8 (3 FP32)"),
        ("fp32", answer({"FP32": 3}, flags=["TF32"]), "TF32 was left on where fp32 was asked for"),
        (
            "fp32",
            answer({"FP32": 3}, text={"tensors": {"FP32": 1}, "tf32": True}),
            "TF32 was left on where fp32 was asked for",
        ),
        (
            "fp32",
            answer({"FP32": 3}, layers={"total": 3, "by_precision": {"FP32": 3}, "tf32_tactics": 2, "moves": 0}),
            "2 layers run TF32 kernels where fp32 was asked for",
        ),
        ("fp32", answer({"FP32": 3, "FP16": 1}), "layers compute in FP16 where fp32 was asked for (3 FP32, 1 FP16)"),
        ("tf32", answer({"FP32": 3}), "TF32 is off where tf32 was asked for"),
        (
            "tf32",
            answer({"FP32": 3}, flags=["TF32"], text={"tensors": {"FP32": 1}, "tf32": False}),
            "TF32 is off where tf32 was asked for",
        ),
        (
            "fp16",
            answer({"NOT_TOLD": 3}),
            "no layer of the plan tells its precision (built without detailed profiling verbosity)",
        ),
        (
            "fp16",
            answer({"OPAQUE": 1}, text={"tensors": {"FP32": 9}, "tf32": False}),
            "no layer computes in FP16 (none tells one)",
        ),
        ("fp32", answer({"FP32": 1}, refittable=True), "the plan is refittable"),
        ("fp32", answer({"FP32": 1}, streamable_weights_bytes=9), "the plan streams its weights"),
        ("fp32", answer({"FP32": 1}, stripped_weights_bytes=9), "the plan's weights are stripped"),
        ("fp32", answer({"FP32": 1}, profiles=[PROFILE, PROFILE]), "the plan has 2 profiles, not 1"),
        (
            "fp32",
            answer({"FP32": 1}, profiles=[{"x": {**PROFILE["x"], "max": [9, 4]}}]),
            "profile 0 of 'x' is {'min': [1, 4], 'opt': [4, 4], 'max': [9, 4]}, not",
        ),
        ("fp32", answer({"FP32": 1}, profiles=[{}]), "profile 0 has no range for 'x'"),
        (
            "fp32",
            answer({"FP32": 1}, inputs=[{"name": "x", "dtype": "FP16", "shape": [-1, 4]}]),
            "input 'x' is FP16, not FP32",
        ),
        (
            "fp32",
            answer({"FP32": 1}, inputs=[{"name": "x", "dtype": "FP32", "shape": [8, 4]}]),
            "input 'x' has the shape [8, 4], not [-1, 4]",
        ),
        (
            "fp32",
            answer({"FP32": 1}, outputs=[{"name": "y", "dtype": "FP32", "shape": [-1, 5]}]),
            "output 'y' has the shape [-1, 5], not [-1, 3]",
        ),
        (
            "fp32",
            answer({"FP32": 1}, outputs=[{"name": "z", "dtype": "FP32", "shape": [-1, 3]}]),
            "output 'y' is not in the plan; the plan has an output 'z' that was not asked for",
        ),
    ],
)
def test_each_untruth_is_told(precision: str, made: dict[str, Any], problem: str):
    assert "; ".join(check(precision, made)).startswith(problem)


def test_options_that_did_not_take_are_told():
    told = check("fp32", answer({"FP32": 1}), version_compatible=True, hardware_compatible=True)
    assert told == ["the plan is not version-compatible", "the plan is not hardware-compatible"]
    made = answer({"FP32": 1}, hardware_compatible=True, flags=["VERSION_COMPATIBLE"])
    assert check("fp32", made, version_compatible=True, hardware_compatible=True) == []


def test_a_small_opaque_plan_tells_nothing_and_that_is_said():
    """All of a tiny model is one fused layer (TensorRT 8.6.1): neither its name nor its size tells a precision."""
    made = answer({"OPAQUE": 1}, flags=["FP16"])
    assert check("fp16", made) == []
    assert "whether all of it computes so is not known" in truth.untold("fp16", made)
    without_flag = answer({"OPAQUE": 1}, flags=[])
    assert check("fp16", without_flag) == ["no layer computes in FP16 (none tells one)"]
    told = answer({"OPAQUE": 1, "FP16": 2}, flags=["FP16"])
    assert truth.untold("fp16", told) == truth.untold("fp32", made) == ""
    assert check("fp16", answer({"OPAQUE": 1, "FP32": 2}, flags=["FP16"])) == ["no layer computes in FP16 (2 FP32)"]


def test_an_opaque_plan_is_weighed_against_its_weights():
    network = {"weights": {"FP32": 400 * MEGABYTE}, "types": {}, "compute": {}, "layers": {"by_precision": {}}}
    small = answer({"OPAQUE": 1}, network=network, plan_bytes=210 * MEGABYTE)
    large = answer({"OPAQUE": 1}, network=network, plan_bytes=402 * MEGABYTE)
    assert check("fp16", small) == []
    assert check("fp16", large) == ["no layer computes in FP16 (1 FP32)"]
    assert check("fp32", large) == []
    assert check("fp32", small) == ["layers compute in FP16 where fp32 was asked for (1 FP16)"]
    assert check("fp16", {**small, "flags": ["VERSION_COMPATIBLE"]}) == ["no layer computes in FP16 (none tells one)"]


def test_layers_that_were_kept_back_may_be_the_most():
    made = answer({"FP16": 1, "FP32": 3})
    assert check("fp16", made, keep_fp32=["a"]), "who kept them, and why, the caller knows"
    assert truth.check({"precision": "fp16"}, made, kept=True) == []


def test_an_output_may_be_known_better_than_the_graph_says():
    made = answer({"FP32": 1}, outputs=[{"name": "y", "dtype": "FP32", "shape": [-1, 3]}])
    loose = TensorSpec("y", "FP32", ("batch", "classes"))
    assert truth.check({"precision": "fp32", "profiles": [PROFILE]}, made, [X], [loose]) == []


def test_values_of_shape_tensors_are_compared():
    values = {"sizes": {"min": [1, 1], "opt": [2, 2], "max": [4, 4]}}
    made = answer({"FP32": 1}, profiles=[{**PROFILE, "values": {"sizes": {**values["sizes"], "max": [8, 8]}}}])
    told = truth.check({"precision": "fp32", "profiles": [{**PROFILE, "values": values}]}, made)
    assert told[0].startswith("profile 0: the values of 'sizes' are {'min': [1, 1], 'opt': [2, 2], 'max': [8, 8]}, not")


def test_what_a_plan_makes_of_the_graphs_dtypes():
    specs = [TensorSpec("ids", "INT64", ("n",)), TensorSpec("x", "FP64", (2,)), TensorSpec("m", "BOOL", (2,))]
    assert [t.dtype for t in truth.expect("tensorrt", "8.6.1", specs)] == ["INT32", "FP32", "BOOL"]
    assert [t.dtype for t in truth.expect("tensorrt", "10.3.0", specs)] == ["INT64", "FP32", "BOOL"]
    with pytest.raises(TensorRTError) as caught:
        truth.expect("tensorrt", "10.3.0", [TensorSpec("text", "BYTES", ("n",))])
    assert caught.value.found == "tensor 'text' is BYTES, which no TensorRT plan has"
    assert "a tokenizer" in caught.value.mend
    with pytest.raises(TensorRTError, match="tensor 'u' is UINT16"):
        truth.expect("tensorrt", "10.3.0", [TensorSpec("u", "UINT16", ("n",))])
