"""Parser and builder for real: TensorRT-RTX on the CPU, the same API and the same scripts that TensorRT runs with.

No plan is opened here: that needs a driver. What only an opened plan tells is null, and asserted to be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import formats
from repo_builder.errors import SourceCorruptError, TensorRTError
from repo_builder.tensorrt import calls, installation, plan_header, truth
from repo_builder.tensorrt.installation import Installation
from repo_builder.tensorrt.preflight import HINT, preflight
from tests import models

TWO = [
    {"x": {"min": [1, 8], "opt": [1, 8], "max": [1, 8]}},
    {"x": {"min": [1, 8], "opt": [16, 8], "max": [32, 8]}},
]


@pytest.fixture(scope="module")
def rtx() -> Installation:
    found = installation.parser()
    if not found.is_rtx:
        pytest.skip("TensorRT and a GPU are here: tests/gpu builds with them")
    return found


def build(rtx: Installation, onnx: Path, **asked: Any) -> dict[str, Any]:
    request = {"onnx": str(onnx), "plan": str(onnx.with_suffix(".plan")), **asked}
    return calls.call(rtx, "build.py", request)


def refused(rtx: Installation, onnx: Path, **asked: Any) -> TensorRTError:
    with pytest.raises(TensorRTError) as caught:
        build(rtx, onnx, **asked)
    assert not onnx.with_suffix(".plan").exists()
    return caught.value


def save(
    path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any], constants: list[Any] = (), **more: Any
) -> Path:
    import onnx
    from onnx import numpy_helper

    stored = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
    model = models.onnx_model(inputs, outputs, nodes, stored, **more)
    onnx.save(model, str(path))
    return path


def perceptron(path: Path, dtype: str = "float32", opset: int = 17) -> Path:
    """x [batch, 8] -> gelu-free MLP -> y [batch, 4], all in one float dtype."""
    from onnx import TensorProto, helper

    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[dtype]
    random = np.random.default_rng(0)
    constants = {n: random.standard_normal(s).astype(dtype) for n, s in {"a": (8, 64), "b": (64, 4)}.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "b"], ["y"], name="second"),
    ]
    return save(path, [("x", kind, ["batch", 8])], [("y", kind, ["batch", 4])], nodes, constants, opset=opset)


def quantized(path: Path) -> Path:
    """x FP32 [batch, 64] -> Q/DQ -> MatMul with INT8 weights -> y FP32 [batch, 32]."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    constants = {
        "w": random.integers(-127, 127, (64, 32)).astype(np.int8),
        "s": np.array(0.05, np.float32),
        "ws": np.array(0.02, np.float32),
        "z": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "z"], ["wd"], name="wdq"),
        helper.make_node("MatMul", ["dq", "wd"], ["y"], name="mm"),
    ]
    sides = [("x", TensorProto.FLOAT, ["batch", 64])], [("y", TensorProto.FLOAT, ["batch", 32])]
    return save(path, *sides, nodes, constants)


def test_a_plan_is_built_with_two_profiles_and_is_what_was_asked(rtx: Installation, tmp_path: Path):
    path = perceptron(tmp_path / "m.onnx")
    request = {"precision": "fp32", "profiles": TWO, "workspace_mib": 64, "optimization_level": 2}
    made = build(rtx, path, **request)
    plan = path.with_suffix(".plan")
    assert (made["module"], made["version"]) == ("tensorrt_rtx", "1.7.1.116")
    assert made["plan_bytes"] == plan.stat().st_size
    assert plan_header.read(plan) == plan_header.PlanHeader("tensorrt_rtx", "1.7.1.116")
    assert made["strongly_typed"] is True
    assert made["flags"] == []
    assert made["network"]["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [-1, 8], "is_shape_tensor": False}]
    assert made["network"]["outputs"] == [{"name": "y", "dtype": "FP32", "shape": [-1, 4], "is_shape_tensor": False}]
    assert made["network"]["weights"] == {"FP32": (8 * 64 + 64 * 4) * 4}
    assert made["network"]["compute"] == {"FP32": 2}
    assert made["text"]["tf32"] is False
    assert made["inspection"] is None
    assert "does not open the plan" in made["not_opened"]
    artifact = formats.get("onnx").describe(path)
    assert truth.check(request, made, artifact.inputs, artifact.outputs) == []


def test_precision_is_the_graphs_own_and_the_built_text_proves_it(rtx: Installation, tmp_path: Path):
    half = build(rtx, perceptron(tmp_path / "h.onnx", "float16"), precision="fp16", profiles=TWO)
    assert half["network"]["compute"] == {"FP16": 2}
    assert half["text"]["tensors"]["FP16"] > 0
    assert truth.check({"precision": "fp16"}, half) == []
    assert truth.check({"precision": "fp32"}, half)[0].startswith("layers compute in FP16 where fp32 was asked for")
    full = build(rtx, perceptron(tmp_path / "f.onnx"), precision="fp16", profiles=TWO)
    assert "FP16" not in full["text"]["tensors"]
    assert truth.check({"precision": "fp16"}, full) == ["no layer computes in FP16 (5 FP32)"]


def test_tf32_is_on_where_it_was_asked_for_alone(rtx: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # must not reach the builder
    path = perceptron(tmp_path / "m.onnx")
    made = build(rtx, path, precision="tf32", profiles=TWO)
    assert made["flags"] == ["TF32"]
    assert made["text"]["tf32"] is True
    assert truth.check({"precision": "tf32"}, made) == []
    assert truth.check({"precision": "fp32"}, made) == ["TF32 was left on where fp32 was asked for"]


def test_int8_is_quantized_in_the_graph(rtx: Installation, tmp_path: Path):
    profile = [{"x": {"min": [1, 64], "opt": [8, 64], "max": [32, 64]}}]
    made = build(rtx, quantized(tmp_path / "q.onnx"), precision="int8", profiles=profile)
    assert made["network"]["types"]["QUANTIZE"] == 1
    assert made["network"]["types"]["DEQUANTIZE"] == 2
    assert made["network"]["weights"]["INT8"] == 64 * 32
    assert truth.check({"precision": "int8"}, made) == []
    error = refused(rtx, perceptron(tmp_path / "m.onnx"), precision="int8", profiles=TWO)
    assert error.found == "int8 was asked for, and the graph has no QuantizeLinear or DequantizeLinear node"


def test_external_weights_are_found_beside_the_file(rtx: Installation, tmp_path: Path):
    path = models.linear_onnx(tmp_path / "m.onnx", external=True)
    made = build(rtx, path, profiles=[{"x": {"min": [1, 4], "opt": [1, 4], "max": [2, 4]}}])
    assert made["network"]["weights"] == {"FP32": (12 + 3) * 4}


def test_shape_tensors_take_ranges_of_values(rtx: Installation, tmp_path: Path):
    from onnx import TensorProto, helper

    path = save(
        tmp_path / "m.onnx",
        [("x", TensorProto.FLOAT, [2, 6]), ("sizes", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, ["rows", "columns"])],
        [helper.make_node("Reshape", ["x", "sizes"], ["y"], name="reshape")],
    )
    assert "is a shape tensor" in refused(rtx, path, profiles=[{}]).found
    ranges = {"min": [1, 2], "opt": [3, 4], "max": [6, 12]}
    made = build(rtx, path, profiles=[{"values": {"sizes": ranges}}])
    assert [one["is_shape_tensor"] for one in made["network"]["inputs"]] == [False, True]


def test_what_cannot_be_built_is_refused_before_building(rtx: Installation, tmp_path: Path):
    path = perceptron(tmp_path / "m.onnx")
    none = refused(rtx, path, profiles=[])
    assert none.found == "the graph has dynamic inputs ('x' [-1, 8]) and no profile was given"
    wrong = refused(rtx, path, profiles=[{"x": {"min": [1, 8], "opt": [8, 8], "max": [4, 8]}}])
    assert wrong.found == "profile 0, input 'x' [-1, 8], axis 0: the range is min 1, opt 8, max 4"
    fixed = refused(rtx, path, profiles=[{"x": {"min": [1, 8], "opt": [1, 9], "max": [1, 16]}}])
    assert fixed.found.endswith("axis 1: the range 8..9..16 leaves the graph's fixed size 8")
    unknown = refused(rtx, path, precision="fp12", profiles=TWO)
    assert unknown.found == "precision 'fp12' is unknown"
    keys = refused(rtx, path, profiles=TWO, refit=True)
    assert keys.found == "the request has unknown keys: refit"


def test_an_option_that_this_version_lacks_is_an_error(rtx: Installation, tmp_path: Path):
    path = perceptron(tmp_path / "m.onnx")
    kept = refused(rtx, path, profiles=TWO, keep_fp32=["first"])
    assert kept.found == "keep_fp32 was given for a strongly typed network (TensorRT-RTX 1.7.1.116)"
    hardware = refused(rtx, path, profiles=TWO, hardware_compatible=True)
    assert hardware.found == "TensorRT-RTX 1.7.1.116 has no hardware-compatible plans"
    version = refused(rtx, path, profiles=TWO, version_compatible=True)
    assert "libnvinfer_lean" in version.found
    assert version.expected == "TensorRT's lean runtime beside it"
    level = refused(rtx, path, profiles=TWO, optimization_level=9)
    assert level.found == "TensorRT-RTX 1.7.1.116 has no builder optimization level 9"
    library = refused(rtx, path, profiles=TWO, plugins=[str(tmp_path / "none.so")])
    assert library.found.startswith(f"the plugin library {tmp_path / 'none.so'} cannot be loaded")
    cache = tmp_path / "timing" / "cache"
    assert build(rtx, path, profiles=TWO, timing_cache=str(cache))["timing_cache"] is None
    assert not cache.exists()


def test_a_library_without_plugins_is_refused(rtx: Installation, tmp_path: Path):
    import ctypes.util

    library = ctypes.util.find_library("m")
    assert library
    error = refused(rtx, perceptron(tmp_path / "m.onnx"), profiles=TWO, plugins=[library])
    assert error.found == f"{library} was loaded, but brought no plugin to TensorRT's registry"


def test_an_unsupported_operator_is_named_with_its_place(rtx: Installation, tmp_path: Path):
    error = refused(rtx, determinant(tmp_path / "m.onnx"))
    assert error.found.startswith(f"the ONNX parser of {rtx.called} refuses the graph: node 'the_det' (Det): ")
    assert "inspect --tensorrt" in error.mend


def determinant(path: Path) -> Path:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Det", ["r"], ["d"], name="the_det"),
        helper.make_node("Add", ["d", "d"], ["y"], name="add"),
    ]
    return save(path, [("x", TensorProto.FLOAT, [2, 3, 3])], [("y", TensorProto.FLOAT, [2])], nodes)


def test_preflight_names_refused_nodes_and_their_mend(rtx: Installation, tmp_path: Path):
    said: list[str] = []
    told = preflight(determinant(tmp_path / "m.onnx"), said.append)
    assert json.loads(json.dumps(told)) == told
    assert (told["supported"], told["hint"], told["note"]) == (False, True, HINT)
    assert told["parser"] == "TensorRT-RTX 1.7.1.116"
    (one,) = told["unsupported"]
    assert {k: one[k] for k in ("index", "name", "op_type", "inputs", "outputs")} == {
        "index": 1,
        "name": "the_det",
        "op_type": "Det",
        "inputs": ["r FP32"],
        "outputs": ["d FP32"],
    }
    assert one["reason"] == "the parser does not know the operator Det"
    assert "compute it outside of the plan" in one["mend"]
    assert told["supported_subgraphs"] == [[0], [2]]
    assert told["layers"] is None
    assert said[-1] == "TensorRT-RTX 1.7.1.116: parse"


def test_preflight_says_what_older_versions_need_and_what_a_build_does_of_it(rtx: Installation, tmp_path: Path):
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Shape", ["x"], ["all"], name="whole"),
        helper.make_node("Shape", ["x"], ["rows"], name="rows", end=1),
        helper.make_node("Concat", ["all", "rows"], ["y"], axis=0),
    ]
    path = save(tmp_path / "m.onnx", [("x", TensorProto.FLOAT, ["batch", 3])], [("y", TensorProto.INT64, [3])], nodes)
    told = preflight(path)
    assert told["supported"]
    assert "supported_subgraphs" not in told
    assert told["remarks"][-1] == (
        "Shape with start or end (rows): the parser of TensorRT 8.6 ignores these attributes; a build for it writes a "
        "slice instead"
    )


def test_preflight_tells_what_becomes_of_the_inputs(rtx: Installation, tmp_path: Path):
    from onnx import TensorProto, helper

    path = save(
        tmp_path / "m.onnx",
        [
            ("ids", TensorProto.INT64, ["batch", 3]),
            ("image", TensorProto.UINT8, ["batch", 3]),
            ("mask", TensorProto.BOOL, ["batch", 3]),
            ("weight", TensorProto.DOUBLE, ["batch", 3]),
            ("sizes", TensorProto.INT64, [2]),
        ],
        [("y", TensorProto.FLOAT, ["rows", "columns"]), ("w", TensorProto.DOUBLE, ["batch", 3])],
        [
            *(helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in ("ids", "image", "mask")),
            helper.make_node("Add", ["ids_f", "image_f"], ["a"]),
            helper.make_node("Add", ["a", "mask_f"], ["b"]),
            helper.make_node("Reshape", ["b", "sizes"], ["y"]),
            helper.make_node("Neg", ["weight"], ["w"]),
        ],
        opset=18,
    )
    told = preflight(path)
    assert told["supported"] is True
    assert told["unsupported"] == []
    assert [(one["name"], one["onnx"], one["tensorrt"]) for one in told["inputs"]] == [
        ("ids", "INT64", "INT64"),
        ("image", "UINT8", "UINT8"),
        ("mask", "BOOL", "BOOL"),
        ("weight", "FP64", "FP32"),
        ("sizes", "INT64", "INT64"),
    ]
    remarks = {one["name"]: one["remark"] for one in told["inputs"]}
    assert remarks["ids"] == "stays INT64 from TensorRT 10 on; TensorRT 8.6 makes it INT32"
    assert remarks["weight"] == "becomes FP32 in the plan: clients send FP32"
    assert remarks["sizes"] == "its values decide shapes: a profile must give their range"
    assert remarks["image"] == ""
    assert told["remarks"] == ["the file has opset 18: the parser of TensorRT 8.6 ends at 17"]


@pytest.mark.parametrize(
    ("kind", "op", "reason", "mend"),
    [
        ("UINT8", "Add", "But type is UInt8", "cast it to INT32 or FP32 right after the input"),
        ("STRING", "Identity", "Failed to convert ONNX", "TensorRT has no strings"),
    ],
)
def test_preflight_mends_dtypes(rtx: Installation, tmp_path: Path, kind: str, op: str, reason: str, mend: str):
    from onnx import TensorProto, helper

    number = TensorProto.DataType.Value(kind)
    nodes = [helper.make_node(op, ["x"] * (2 if op == "Add" else 1), ["y"], name="n")]
    told = preflight(save(tmp_path / "m.onnx", [("x", number, [1, 3])], [("y", number, [1, 3])], nodes))
    assert told["supported"] is False
    assert reason in told["unsupported"][0]["reason"]
    assert mend in told["unsupported"][0]["mend"]


def test_preflight_refuses_what_is_no_onnx(rtx: Installation, tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(SourceCorruptError, match="does not parse as ONNX"):
        preflight(tmp_path / "m.onnx")


def test_a_built_plan_is_described_by_its_header_and_a_cut_one_is_refused(rtx: Installation, tmp_path: Path):
    path = perceptron(tmp_path / "m.onnx")
    build(rtx, path, profiles=TWO)
    plan = path.with_suffix(".plan")
    name, found = formats.detect(str(plan))
    facts = formats.get(name).describe(found).facts
    assert (facts["module"], facts["tensorrt"], facts["opened"]) == ("tensorrt_rtx", "1.7.1.116", False)
    with pytest.raises(TensorRTError, match=r"TensorRT-RTX 1\.7\.1\.116 does not open the plan"):
        calls.call(rtx, "inspect_plan.py", {"plan": str(plan), "plugins": []})
    plan.write_bytes(plan.read_bytes()[:5000])
    with pytest.raises(SourceCorruptError, match=r"m\.plan is cut off: it has 5000 bytes of \d+"):
        formats.get(name).describe(plan)
