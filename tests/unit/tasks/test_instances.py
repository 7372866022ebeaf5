"""How many instances serve on the CPU, with how many threads, and what of it stands in the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder.artifact import Artifact
from repo_builder.spec import ModelSpec
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.instances import chosen, cpu_instances
from repo_builder.tensors import TensorSpec

GIB = 1 << 30


@pytest.mark.parametrize(
    ("weights", "cpus", "memory", "expected"),
    [
        (90 << 20, 2, 4 * GIB, (2, 1)),
        (90 << 20, 64, 128 * GIB, (64, 1)),
        (0, 4, GIB, (4, 1)),
        (GIB, 8, 16 * GIB, (8, 1)),
        (GIB + 1, 8, 16 * GIB, (7, 1)),
        (2 * GIB, 8, 16 * GIB, (4, 2)),
        (3 * GIB, 8, 16 * GIB, (2, 4)),
        (100 * GIB, 8, 16 * GIB, (1, 8)),
    ],
)
def test_as_many_instances_as_cores_unless_their_weights_take_half_of_the_memory(
    weights: int, cpus: int, memory: int, expected: tuple[int, int]
) -> None:
    assert cpu_instances(weights, cpus, memory) == expected


def artifact(
    folder: Path, engine: str = "onnx", *, weights: int = 1000, axes: tuple[int | str, ...] = (4,)
) -> Artifact:
    path = folder / ("model.onnx" if engine == "onnx" else "model.pt")
    with open(path, "wb") as handle:
        handle.truncate(weights)  # sparse: only its size is looked at
    one = TensorSpec("x", "FP32", ("batch", *axes))
    return Artifact(path, engine, (one,), (TensorSpec("y", "FP32", ("batch", 4)),), "batch", (path.name,))


def planned(folder: Path, engine: str = "onnx", *, artifact_of: dict[str, Any] | None = None, **fields: Any) -> Any:
    spec = ModelSpec(source="model.onnx", engine=engine, **fields)  # type: ignore[arg-type]
    return engine_model("m", spec, artifact(folder, engine, **(artifact_of or {}))).config


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("onnx", ("intra_op_thread_count", "inter_op_thread_count")),
        ("torchscript", ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")),
    ],
)
def test_an_instance_per_core_by_the_parameters_of_the_compiled_backend(
    tmp_path: Path, engine: str, names: tuple[str, str]
) -> None:
    config = planned(tmp_path, engine, cpus=3)
    assert [(group.count, group.kind) for group in config.instance_group] == [(3, 2)]  # 2: KIND_CPU
    assert parameters(config) == dict.fromkeys(names, "1")
    assert chosen(config) == {"count": 3, "kind": "cpu", "threads": 1}


def test_heavy_weights_share_the_cores(tmp_path: Path) -> None:
    heavy = {"weights": 3 * GIB}
    config = planned(tmp_path, cpus=8, artifact_of=heavy)
    assert chosen(config) == {"count": 2, "kind": "cpu", "threads": 4}
    told = planned(tmp_path, cpus=8, memory=64, artifact_of=heavy)
    assert chosen(told) == {"count": 8, "kind": "cpu", "threads": 1}


def test_asked_instances_win(tmp_path: Path) -> None:
    cpu = planned(tmp_path, cpus=8, instances={"count": 2, "kind": "cpu"})
    assert chosen(cpu) == {"count": 2, "kind": "cpu", "threads": 4}
    gpu = planned(tmp_path, cpus=8, instances={"count": 2, "kind": "gpu", "gpus": [0]})
    assert chosen(gpu) == {"count": 2, "kind": "gpu", "threads": 0}
    assert not parameters(gpu)
    server = planned(tmp_path, cpus=8, instances={"count": 1})
    assert chosen(server) == {"count": 1, "kind": "auto", "threads": 0}


def test_the_config_of_the_user_wins(tmp_path: Path) -> None:
    group = planned(tmp_path, cpus=8, config={"instance_group": [{"count": 5, "kind": "KIND_GPU"}]})
    assert chosen(group) == {"count": 5, "kind": "gpu", "threads": 0}
    threads = planned(tmp_path, cpus=8, config={"parameters": {"intra_op_thread_count": {"string_value": "2"}}})
    assert chosen(threads) == {"count": 8, "kind": "cpu", "threads": 2}


def test_a_spec_without_cores_leaves_the_instances_to_the_server(tmp_path: Path) -> None:
    config = planned(tmp_path)
    assert not config.instance_group
    assert not parameters(config)
    assert chosen(config) is None


def test_batches_are_not_made_ahead_where_requests_differ_in_shape(tmp_path: Path) -> None:
    free = {"axes": ("sequence",)}
    assert planned(tmp_path, cpus=2, artifact_of=free).dynamic_batching.default_queue_policy.allow_timeout_override
    assert not planned(tmp_path, cpus=2).dynamic_batching.HasField("default_queue_policy")
    gpu = planned(tmp_path, cpus=2, artifact_of=free, instances={"count": 1, "kind": "gpu"})
    assert gpu.HasField("dynamic_batching")
    assert not gpu.dynamic_batching.HasField("default_queue_policy")
    off = planned(tmp_path, cpus=2, artifact_of=free, batching={"dynamic": False})
    assert not off.HasField("dynamic_batching")
