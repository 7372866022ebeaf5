"""The inspector's JSON of every kind. Keys and format words of 8.6 and of RTX 1.7 (11's code) stand in their libraries;
which of them a layer prints follows NVIDIA's public documentation and public issues: hand-written all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest


def tensor(name: str, text: str, key: str = "Format/Datatype", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [1, 4], key: text, **more}


EIGHT = [  # TensorRT 8.6: one sentence for format and dtype
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to conv1",
        "LayerType": "Reformat",
        "Inputs": [tensor("image", "Row major linear FP32")],
        "Outputs": [tensor("r", "Channel major FP16 format where channel % 4 == 0")],
        "ParameterType": "Reformat",
        "TacticValue": "0x00000000000003ea",
    },
    {
        "Name": "conv1 + relu1",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("r", "Channel major FP16 format where channel % 4 == 0")],
        "Outputs": [tensor("c", "Channel major FP16 format where channel % 8 == 0")],
        "Weights": {"Type": "Half", "Count": 9408},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x64",
    },
    {
        "Name": "conv2",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("c", "Thirty-two wide channel vectorized row major Int8 format")],
        "Outputs": [tensor("d", "Row major linear FP32")],
        "Weights": {"Type": "Int8", "Count": 131072},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs",
    },
    {
        "Name": "conv3",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("d", "Row major linear FP32")],
        "Outputs": [tensor("e", "Row major linear FP32")],
        "Weights": {"Type": "Float", "Count": 10},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc",
    },
    {
        "Name": "{ForeignNode[a...b]}",
        "LayerType": "Myelin",
        "Inputs": [tensor("e", "Row major linear FP32")],
        "Outputs": [tensor("y", "Row major linear FP32")],
        "TacticValue": "0x0000000000000000",
    },
    {
        "Name": "PWN(exp)",
        "LayerType": "PointWiseV2",
        "Inputs": [tensor("e", "N/A due to dynamic shapes")],
        "Outputs": [tensor("z", "N/A due to dynamic shapes")],
    },
]
TEN = [  # TensorRT 10: one word for the dtype, generated kernels
    {
        "Name": "__myl_CastMul_myl0_1",
        "LayerType": "kgen",
        "Inputs": [tensor("x", "Half"), tensor("n", "Int64")],
        "Outputs": [tensor("h", "Half")],
        "Metadata": "[ONNX Layer: mul]",
    },
    {
        "Name": "gemm",
        "LayerType": "gemm",
        "Inputs": [tensor("h", "BFloat16")],
        "Outputs": [tensor("g", "BFloat16")],
        "TacticName": "sm90_xmma_gemm_bf16bf16_bf16f32_f32",
    },
    {
        "Name": "q",
        "LayerType": "kgen",
        "Inputs": [tensor("g", "Float")],
        "Outputs": [tensor("q", "Int8")],
    },
    {"Name": "dq", "LayerType": "Dequantize", "Inputs": [tensor("q", "Int8")], "Outputs": [tensor("f", "Float")]},
    {"Name": "ids", "LayerType": "Gather", "Inputs": [tensor("i", "Int32")], "Outputs": [tensor("j", "Int32")]},
    {"Name": "e4m3", "LayerType": "gemm", "Inputs": [tensor("f", "FP8")], "Outputs": [tensor("y", "Float")]},
]
ELEVEN = [  # TensorRT 11 and RTX: Format and Datatype apart
    {
        "Name": "mm",
        "LayerType": "gemm",
        "Inputs": [tensor("x", "Format not available due to dynamic shapes", "Format", Datatype="Half")],
        "Outputs": [tensor("y", "Format not available due to dynamic shapes", "Format", Datatype="Half")],
    },
    {"Name": "add", "LayerType": "kgen", "Precision": "FP32", "Outputs": [tensor("y", "kHALF", "Datatype")]},
    {"Name": "mm2", "LayerType": "gemm", "Outputs": [tensor("y", "Row major linear BF16 format (kLINEAR)", "Format")]},
]


@pytest.mark.parametrize(
    ("listed", "precisions"),
    [
        (EIGHT, ["FP16", "FP16", "INT8", "FP32", "OPAQUE", "NOT_TOLD"]),
        (TEN, ["FP16", "BF16", "FP32", "FP32", "INT32", "FP8"]),
        (ELEVEN, ["FP16", "FP32", "BF16"]),
    ],
)
def test_each_layer_has_the_precision_that_it_computes_in(worker: Any, listed: list[Any], precisions: list[str]):
    found = worker("inspection").layers(json.dumps({"Layers": listed, "Bindings": ["x", "y"]}))
    assert [one["precision"] for one in found] == precisions
    assert [one["name"] for one in found] == [one["Name"] for one in listed]


def test_moves_are_in_no_precision_and_tf32_kernels_are_counted(worker: Any):
    inspection = worker("inspection")
    counted = inspection.count(inspection.layers(json.dumps({"Layers": EIGHT})))
    assert counted == {
        "total": 6,
        "by_precision": {"FP16": 1, "FP32": 1, "INT8": 1, "NOT_TOLD": 1, "OPAQUE": 1},
        "tf32_tactics": 1,
        "moves": 1,
    }


def test_outputs_of_a_layer_are_told(worker: Any):
    found = worker("inspection").layers(json.dumps({"Layers": EIGHT}))
    assert [one["outputs"] for one in found] == [["FP16"], ["FP16"], ["FP32"], ["FP32"], ["FP32"], ["NOT_TOLD"]]


def test_a_plan_without_detailed_verbosity_tells_names_alone(worker: Any):
    inspection = worker("inspection")
    found = inspection.layers('{"Layers": ["conv1 + relu1"\n,"fc"],\n"Bindings": ["x"]}')
    assert [one["name"] for one in found] == ["conv1 + relu1", "fc"]
    assert inspection.count(found)["by_precision"] == {"NOT_TOLD": 2}


def test_control_characters_in_metadata_do_not_break_the_reading(worker: Any):
    text = '{"Layers": [{"Name": "a", "LayerType": "gemm", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}'
    assert worker("inspection").layers(text)[0]["name"] == "a"


def test_the_text_of_fused_graphs_tells_dtypes_and_tf32(worker: Any):
    read = worker("plan_text").read
    text = (
        b"\x00\x01  profiling=0\n  tf32=0\n  x=1\ndescriptors {\n"
        b'  tensor={ alignment=128 dims={ 1 3 } name="a" strides={ 3 1 } type=float }\n'
        b'  tensor={ alignment=128 dims={ 1 3 } name="b" strides={ 3 1 } type=half }\n'
        b'  tensor={ alignment=128 dims={ 1 3 } name="c" strides={ 3 1 } type=half }\n\x00'
    )
    assert read(text) == {"tensors": {"FP16": 2, "FP32": 1}, "tf32": False}
    assert read(text + text.replace(b"tf32=0", b"tf32=1"))["tf32"] is True
    assert read(b"ftrt\x00nothing of that kind") is None
