"""The ModelConfig of a TensorRT plan. The plans here are opaque bytes with made-up facts: nothing opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder import render
from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tensors import TensorSpec

TOKENS = (TensorSpec("input_ids", "INT32", ("batch", "sequence")),)
POOLED = (TensorSpec("pooled", "FP16", ("batch", 384)),)
PLAIN = """\
name: "m"
platform: "tensorrt_plan"
backend: "tensorrt"
max_batch_size: 8
input [
  {
    name: "input_ids"
    data_type: TYPE_INT32
    dims: [ -1 ]
  }
]
output [
  {
    name: "pooled"
    data_type: TYPE_FP16
    dims: [ 384 ]
  }
]
dynamic_batching { }
instance_group [
  {
    kind: KIND_GPU
    count: 1
  }
]
"""


def _ranges(*batches: int) -> list[dict[str, dict[str, list[int]]]]:
    return [{"input_ids": {"min": [1, 1], "opt": [b, 64], "max": [b, 128]}} for b in batches]


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    def made(batches: tuple[int, ...] = (8,), **changed: Any) -> Artifact:
        path = tmp_path / "built.plan"
        path.write_bytes(b"made-up plan")
        facts = {"compute_capability": "9.0", "tensorrt": "8.6.1", "profiles": _ranges(*batches)}
        fields = {"inputs": TOKENS, "outputs": POOLED, "batch": "batch", "files": ("built.plan",), "facts": facts}
        return Artifact(path, "tensorrt_plan", **{**fields, **changed})

    return made


def _spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"source": "m.onnx", "engine": "tensorrt", "cpus": 16, **fields})


def test_a_plan_is_served_by_one_instance_on_each_gpu_and_the_cores_do_not_count(plan: Any) -> None:
    model = engine_model("m", _spec(), plan())
    assert list(model.version_files) == ["model.plan"]
    assert render.render_config(model.config) == PLAIN


def test_asked_instances_are_gpu_instances(plan: Any) -> None:
    asked = {"count": 2, "kind": "auto", "gpus": [1]}
    group = engine_model("m", _spec(instances=asked), plan()).config.instance_group[0]
    assert (group.count, group.kind, list(group.gpus)) == (2, 1, [1])


def test_what_a_plan_needs_of_the_server_stands_in_its_config(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "libmine.so").write_bytes(b"a library")
    facts = {"version_compatible": True, "plugins": ["libmine.so"], "profiles": _ranges(8)}
    made = engine_model(
        "m", _spec(config={"parameters": {"x": "1"}}), plan(files=("built.plan", "libmine.so"), facts=facts)
    )
    assert {key: value.string_value for key, value in made.config.parameters.items()} == {
        "backend-config.tensorrt.plugins": "libmine.so",
        "backend-config.tensorrt.version-compatible": "true",
        "x": "1",
    }
    assert made.version_files == {"model.plan": tmp_path / "built.plan", "libmine.so": tmp_path / "libmine.so"}


def test_every_instance_opens_all_profiles(plan: Any) -> None:
    config = engine_model("m", _spec(), plan((8, 32))).config
    assert [list(group.profile) for group in config.instance_group] == [["0", "1"]]
    assert config.max_batch_size == 32
    assert not engine_model("m", _spec(), plan((8,))).config.instance_group[0].profile


def test_batches_are_no_larger_than_the_profiles_take(plan: Any) -> None:
    assert engine_model("m", _spec(), plan((4,))).config.max_batch_size == 4
    assert engine_model("m", _spec(), plan((64,))).config.max_batch_size == 32
    assert engine_model("m", _spec(batching={"max_batch_size": 2}), plan((4,))).config.max_batch_size == 2
    found = r"max_batch_size 16 is larger than the batches of the plan's profiles \(4\)"
    with pytest.raises(SignatureError, match=found):
        engine_model("m", _spec(batching={"max_batch_size": 16}), plan((4,)))
    with pytest.raises(SignatureError, match=found):
        engine_model("m", _spec(config={"max_batch_size": 16}), plan((4,)))
    one_small = {"input_ids": {"max": [8, 128]}, "mask": {"max": [2, 128]}}
    assert engine_model("m", _spec(), plan(facts={"profiles": [one_small]})).config.max_batch_size == 2


def test_buckets_of_batch_sizes_say_the_batch_size_before_there_is_a_plan(tmp_path: Path) -> None:
    from repo_builder.tasks.engine_model import max_batch_size

    onnx = Artifact(tmp_path / "m.onnx", "onnx", TOKENS, POOLED, "batch")
    buckets = [{"batch": {"min": 1, "opt": 1, "max": 1}}, {"batch": {"min": 1, "opt": 8, "max": 8}}]
    assert max_batch_size(_spec(tensorrt={"profiles": buckets}), onnx) == 8
    assert max_batch_size(_spec(shapes={"batch": {"min": 1, "opt": 8, "max": 64}}), onnx) == 64


def test_shape_tensors_are_marked_and_not_batched(plan: Any) -> None:
    inputs = (TensorSpec("x", "FP32", (1, "n")), TensorSpec("size", "INT64", (2,)))
    facts = {"profiles": [{"x": {"max": [1, 9]}, "size": {"max": [4, 4]}}], "shape_tensors": ["size"]}
    config = engine_model("m", _spec(), plan(inputs=inputs, batch=None, facts=facts)).config
    assert [(i.name, list(i.dims), i.is_shape_tensor) for i in config.input] == [
        ("x", [1, -1], False),
        ("size", [2], True),
    ]
    assert config.max_batch_size == 0
    with pytest.raises(SignatureError, match=r"max_batch_size is 4, and size decide shapes by value"):
        engine_model("m", _spec(config={"max_batch_size": 4}), plan(inputs=inputs, batch=None, facts=facts))


@pytest.mark.parametrize(
    ("group", "found", "mend"),
    [
        ({"kind": "KIND_CPU"}, "instance_group has KIND_CPU", "correct its kind"),
        ({"count": 2, "kind": "KIND_GPU"}, "names no profile, so that its instances open only the first of 2", "every"),
        ({"kind": "KIND_GPU", "profile": ["0", "2"]}, "opens the profile 2, which the plan does not have", "every"),
    ],
)
def test_instance_groups_of_the_user_are_checked(plan: Any, group: dict[str, Any], found: str, mend: str) -> None:
    with pytest.raises(SpecError) as caught:
        engine_model("m", _spec(config={"instance_group": [group]}), plan((8, 32)))
    assert found in caught.value.found
    assert mend in caught.value.mend


def test_a_group_may_open_some_profiles_and_then_batches_are_theirs(plan: Any) -> None:
    group = {"kind": "KIND_GPU", "profile": ["0"]}
    with pytest.raises(SignatureError, match=r"max_batch_size 32 is larger .* \(8\)"):
        engine_model("m", _spec(config={"instance_group": [group]}), plan((8, 32)))
    config = engine_model("m", _spec(config={"instance_group": [group], "max_batch_size": 8}), plan((8, 32))).config
    assert list(config.instance_group[0].profile) == ["0"]


def test_cuda_graphs_are_the_users_to_ask_for(plan: Any) -> None:
    assert not engine_model("m", _spec(), plan()).config.HasField("optimization")
    config = engine_model("m", _spec(config={"optimization": {"cuda": {"graphs": True}}}), plan()).config
    assert config.optimization.cuda.graphs
