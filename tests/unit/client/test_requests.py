"""Addresses, messages, sizes, and what importing the client costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from repo_builder import client
from repo_builder.client.messages import Options, infer_request
from repo_builder.client.metadata import ModelMetadata
from repo_builder.client.transport import channel_options, target_of
from repo_builder.errors import InferenceError, UsageError
from repo_builder.tensors import TensorSpec

MODEL = ModelMetadata("m", ("1",), "python", (TensorSpec("x", "FP32", ("?",)),), (TensorSpec("out", "FP32", ("?",)),))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("grpc://host:9000", "host:9000"),
        ("host", "host:8001"),
        ("grpc://[::1]:9000", "[::1]:9000"),
        ("[::1]", "[::1]:8001"),
    ],
)
def test_addresses(url: str, target: str) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize("url", ["http://host:8000", "grpc://", "", "host:port", "host:99999", "grpc://host:1/path"])
def test_what_is_no_grpc_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        client.connect(url)
    assert f"'{url}' is not a gRPC address" in str(caught.value)
    assert "this client speaks gRPC (Triton's port 8001 by default), not HTTP (8000)" in str(caught.value)


def test_messages_are_unlimited_and_local_servers_bypass_proxies() -> None:
    local, remote = dict(channel_options("127.0.0.1:8001")), dict(channel_options("example.org:8001"))
    assert local["grpc.max_receive_message_length"] == -1
    assert local["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in remote


def test_a_request_carries_everything() -> None:
    options = Options(
        ["out"], "3", "id7", {"flag": True, "n": 2, "f": 0.5, "s": "t"}, sequence_id=9, sequence_start=True
    )
    request = infer_request(MODEL, {"x": [1.0]}, options)
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "id7")
    assert [output.name for output in request.outputs] == ["out"]
    assert request.parameters["flag"].bool_param is True
    assert request.parameters["n"].int64_param == 2
    assert request.parameters["f"].double_param == 0.5
    assert request.parameters["s"].string_param == "t"
    assert request.parameters["sequence_id"].int64_param == 9
    assert request.parameters["sequence_start"].bool_param is True
    assert request.raw_input_contents[0] == np.float32(1).tobytes()


def test_other_parameter_types_are_refused() -> None:
    with pytest.raises(InferenceError, match="request parameter 'p' is of type list\n  expected: bool, int"):
        infer_request(MODEL, {"x": [1.0]}, Options(parameters={"p": [1]}))  # type: ignore[dict-item]


def test_more_than_two_gigabytes_are_refused_before_anything_is_copied() -> None:
    huge = np.broadcast_to(np.float32(0), (2**29,))
    with pytest.raises(InferenceError) as caught:
        infer_request(MODEL, {"x": huge}, Options())
    assert "m: the inputs take 2147483648 bytes" in str(caught.value)
    assert "a gRPC message ends at 2 GiB" in str(caught.value)
    assert "split the batch (infer_many), or use shared_memory=True" in str(caught.value)


def test_importing_the_client_imports_no_grpc() -> None:
    code = (
        "import sys, repo_builder.client; "
        "print([m for m in ('grpc', 'tritonclient', 'google.protobuf', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
