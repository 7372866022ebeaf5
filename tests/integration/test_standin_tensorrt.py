"""The tensorrt stand-in in the real server, as far as a machine without a GPU goes: what it refuses there.

The compiled backend looks at the kind of an instance before it looks for a plan, so on a CPU nothing else is reached;
the rest is tested on a GPU (``tests/gpu``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from repo_builder.server import tensorrt_python
from tests.integration.standins import refusals, refused

pytestmark = pytest.mark.server

IO = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "Y" data_type: TYPE_FP32 dims: 4 }
"""
CONFIGS = {
    "by_platform": 'platform: "tensorrt_plan"' + IO,
    "by_backend": 'backend: "tensorrt"' + IO,
    "on_cpu": 'platform: "tensorrt_plan"' + IO + "instance_group { kind: KIND_CPU count: 1 }",
    "two_accelerators": 'platform: "tensorrt_plan"'
    + IO
    + "instance_group { kind: KIND_CPU count: 1 "
    + "secondary_devices { kind: KIND_NVDLA device_id: 0 } secondary_devices { kind: KIND_NVDLA device_id: 1 } }",
    "wrong_platform": 'backend: "tensorrt"\nplatform: "onnxruntime_onnx"' + IO,
    "on_gpu": 'platform: "tensorrt_plan"' + IO + "instance_group { kind: KIND_GPU count: 1 }",
}


@pytest.fixture(scope="module")
def running(server_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server that carries every model of this file and loads none by itself."""
    repository = tmp_path_factory.mktemp("standin") / "models"
    for name, config in CONFIGS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.plan").write_bytes(b"ftrt")
        (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        # Where no plan can be served the server is not even started: here it is, to hear what it says.
        patch.setattr(tensorrt_python, "find", lambda: None)
        started = server_factory(repository, extra_args=["--model-control-mode=explicit"])
    yield started
    started.stop()


@pytest.fixture(scope="module")
def client(running: Any) -> Iterator[Any]:
    import tritonclient.grpc as grpc

    with grpc.InferenceServerClient(running.url) as connection:
        yield connection


@pytest.fixture(scope="module")
def gpu(client: Any) -> bool:
    """Whether this machine has a GPU, by the driver's file alone."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["by_platform", "by_backend"])
def test_without_a_gpu_no_plan_is_loaded(client: Any, gpu: bool, name: str) -> None:
    if gpu:
        pytest.skip("this machine has a GPU")
    assert refusals("tensorrt")["kind"][1].format(model=name) in refused(client, name)


def test_instances_on_the_cpu_are_refused(client: Any) -> None:
    assert refusals("tensorrt")["kind"][1].format(model="on_cpu") in refused(client, "on_cpu")


def test_two_secondary_devices_are_refused(client: Any) -> None:
    said = refused(client, "two_accelerators")
    _, message = refusals("tensorrt")["secondary"]
    assert message.format(instance="two_accelerators_0_0", model="two_accelerators") in said


def test_the_server_refuses_a_platform_of_another_backend(client: Any, running: Any) -> None:
    assert "failed to load 'wrong_platform'" in refused(client, "wrong_platform")
    words = "unexpected 'platform' and 'backend' pair, got:onnxruntime_onnx, tensorrt"
    assert words in running.log_path.read_text(encoding="utf-8")


def test_the_server_refuses_gpu_instances_where_there_is_none(client: Any, gpu: bool) -> None:
    if gpu:
        pytest.skip("this machine has a GPU")
    assert "has kind KIND_GPU but no GPUs are available" in refused(client, "on_gpu")
