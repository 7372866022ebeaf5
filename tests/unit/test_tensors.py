from __future__ import annotations

import numpy as np
import pytest

from repo_builder import tensors
from repo_builder.errors import UnsupportedDtypeError
from repo_builder.tensors import DTYPES, TensorSpec

ALL = ", ".join(d.triton for d in DTYPES)


def test_table_has_every_dtype_of_the_inference_protocol_once():
    assert sorted(d.triton for d in DTYPES) == sorted(
        [
            "BOOL",
            "UINT8",
            "UINT16",
            "UINT32",
            "UINT64",
            "INT8",
            "INT16",
            "INT32",
            "INT64",
            "FP16",
            "FP32",
            "FP64",
            "BF16",
            "BYTES",
        ]
    )
    for field in ("triton", "config", "numpy", "onnx", "torch", "tensorrt"):
        names = [getattr(d, field) for d in DTYPES if getattr(d, field) is not None]
        assert len(set(names)) == len(names), field


def test_config_names_are_those_of_triton():
    from tritonclient.grpc import model_config_pb2

    known = set(model_config_pb2.DataType.keys()) - {"TYPE_INVALID"}
    assert {d.config for d in DTYPES} == known


def test_numpy_names_are_those_of_tritonclient():
    from tritonclient.utils import triton_to_np_dtype

    for d in DTYPES:
        if d.numpy and d.triton != "BF16":
            assert np.dtype(triton_to_np_dtype(d.triton)) == np.dtype(d.numpy), d


def test_onnx_numbers_are_those_of_onnx():
    import onnx

    for d in DTYPES:
        if d.numpy:
            array = onnx.helper.tensor_dtype_to_np_dtype(d.onnx)
            assert array == np.dtype(d.numpy), d
    assert tensors.dtype("BF16").onnx == onnx.TensorProto.BFLOAT16
    assert tensors.dtype("BYTES").onnx == onnx.TensorProto.STRING


@pytest.mark.torch
def test_torch_names_are_those_of_torch():
    import torch

    for d in DTYPES:
        if d.torch and d.numpy:
            assert torch.zeros(1, dtype=getattr(torch, d.torch)).numpy().dtype == np.dtype(d.numpy), d


@pytest.mark.parametrize("name", ["FP32", "TYPE_FP32", "float32", "torch.float32"])
def test_one_dtype_under_all_its_names(name):
    assert tensors.dtype(name).triton == "FP32"


def test_strings_are_bytes_in_the_protocol_and_string_in_the_config():
    assert tensors.dtype("TYPE_STRING").triton == "BYTES"
    assert tensors.dtype("BYTES").config == "TYPE_STRING"
    for array in (np.array(["a"]), np.array([b"a"]), np.array(["a"], dtype=object)):
        assert tensors.from_numpy(array.dtype).triton == "BYTES"


@pytest.mark.parametrize("d", [d for d in DTYPES if d.numpy], ids=lambda d: d.triton)
def test_numpy_and_onnx_there_and_back(d):
    assert tensors.from_numpy(d.numpy) == d
    assert tensors.from_onnx(d.onnx) == d


def test_from_tensorrt():
    assert tensors.from_tensorrt("HALF").triton == "FP16"
    with pytest.raises(UnsupportedDtypeError, match="dtype TensorRT INT4, which Triton does not have"):
        tensors.from_tensorrt("INT4")


@pytest.mark.parametrize("wrong", ["complex64", "float8_e4m3fn", "fp32", "TYPE_BYTES", ""])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(UnsupportedDtypeError) as caught:
        tensors.dtype(wrong)
    assert caught.value.found == f"dtype {wrong}, which Triton does not have"
    assert caught.value.expected == f"one of {ALL}"


def test_from_numpy_refuses_what_triton_lacks():
    with pytest.raises(UnsupportedDtypeError, match="dtype complex64, which Triton does not have"):
        tensors.from_numpy(np.complex64)
    with pytest.raises(UnsupportedDtypeError, match="datetime64"):
        tensors.from_numpy("datetime64[s]")


def test_from_onnx_names_the_tensor_and_the_type():
    with pytest.raises(UnsupportedDtypeError, match="tensor 'x' has dtype COMPLEX64, which Triton does not have"):
        tensors.from_onnx(14, "x")
    with pytest.raises(UnsupportedDtypeError, match="ONNX element type 999"):
        tensors.from_onnx(999)


def test_tensor_spec():
    spec = TensorSpec("x", "FP32", ("batch", 3, "width"))
    assert spec.dims == (-1, 3, -1)
    assert spec.numpy == np.dtype("float32")
    assert str(spec) == "x FP32[batch, 3, width]"
    assert TensorSpec("s", "BYTES", ()).numpy == np.dtype(object)


def test_numpy_has_no_bf16():
    with pytest.raises(UnsupportedDtypeError, match="tensor 'x' has dtype BF16"):
        _ = TensorSpec("x", "BF16", (1,)).numpy
