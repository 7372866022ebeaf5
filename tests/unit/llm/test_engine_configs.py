"""The five configs of the engine path: names, sizes, data types, instances. Their tensors: tests/contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import contract, engine_configs, parameters

ENGINE = EngineSettings("1.2.1", "LlamaForCausalLM", 64, 2048, 4096)


def configs(settings: EngineSettings = ENGINE, *, given: dict[str, Any] | None = None, **changed: Any) -> Any:
    version = changed.pop("version", "1.2.1")
    arguments: dict[str, Any] = {
        "contract": contract.of(version),
        "max_batch_size": 8,
        "decoupled": True,
        "parameters": parameters.check(given or {}, version, settings),
        "preprocessing": {},
        "postprocessing": {},
        "bls": {},
    }
    return engine_configs.configs("chat", settings, **{**arguments, **changed})


def parameter(config: Any, key: str) -> str:
    return str(config.parameters[key].string_value)


def data_type(tensors: Any, name: str) -> str:
    tensor = next(tensor for tensor in tensors if tensor.name == name)
    kinds = type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(kinds[tensor.data_type].name)


def test_models_find_each_other_by_parameters_and_the_engine_by_the_mount() -> None:
    made = configs(bls={"chat_template": "{{ messages }}"})
    assert list(made) == list(engine_configs.ROLES)
    assert {role: config.name for role, config in made.items()} == engine_configs.names("chat")
    assert made["bls"].name == "chat"
    assert {key: parameter(made["bls"], key) for key in made["bls"].parameters} == {
        "chat_template": "{{ messages }}",
        "tensorrt_llm_model_name": "chat_tensorrt_llm",
        "preprocessing_model_name": "chat_preprocessing",
        "postprocessing_model_name": "chat_postprocessing",
    }
    assert parameter(made["tensorrt_llm"], "gpt_model_path") == "/models/chat_tensorrt_llm/1"
    elsewhere = configs(given={"engine_dir": "/engines/chat"})["tensorrt_llm"]
    assert parameter(elsewhere, "gpt_model_path") == "/engines/chat"
    assert [step.model_name for step in made["ensemble"].ensemble_scheduling.step] == (
        ["chat_preprocessing", "chat_tensorrt_llm", "chat_postprocessing"]
    )


@pytest.mark.parametrize("decoupled", [True, False])
def test_decoupled_is_the_same_for_the_engine_and_the_public_model(decoupled: bool) -> None:
    made = configs(decoupled=decoupled)
    policies = {role: config.model_transaction_policy.decoupled for role, config in made.items()}
    assert policies == {role: decoupled and role in ("bls", "tensorrt_llm") for role in engine_configs.ROLES}


@pytest.mark.parametrize(
    ("dtype", "logits", "version", "features", "table"),
    [
        ("float16", "float32", "1.2.1", "TYPE_FP16", "TYPE_FP16"),
        ("bfloat16", "bfloat16", "1.2.1", "TYPE_BF16", "TYPE_BF16"),
        ("bfloat16", "float16", "1.0.0", "TYPE_BF16", "TYPE_FP16"),
        ("float32", "float32", "1.1.0", "TYPE_FP16", "TYPE_FP32"),
    ],
)
def test_data_types_are_the_engines(dtype: str, logits: str, version: str, features: str, table: str) -> None:
    made = configs(replace(ENGINE, dtype=dtype, logits_dtype=logits), version=version)
    wanted = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16"}[logits]
    assert data_type(made["tensorrt_llm"].input, "encoder_input_features") == features
    assert data_type(made["tensorrt_llm"].input, "draft_logits") == wanted
    for role in ("bls", "ensemble", "tensorrt_llm"):
        assert data_type(made[role].input, "prompt_embedding_table") == table
        assert data_type(made[role].output, "context_logits") == wanted
        assert data_type(made[role].output, "generation_logits") == wanted


def test_messages_are_an_input_of_the_public_model_and_of_preprocessing_alone() -> None:
    made = configs()
    named = {role: [t.name for t in config.input if t.name.lower() == "messages"] for role, config in made.items()}
    assert named == {
        "bls": ["messages"],
        "preprocessing": ["MESSAGES"],
        "ensemble": [],
        "tensorrt_llm": [],
        "postprocessing": [],
    }


def test_batches_queues_and_instances() -> None:
    made = configs(
        max_batch_size=16,
        max_queue_delay_microseconds=500,
        max_queue_size=40,
        preprocessing_instances=2,
        postprocessing_instances=3,
        bls_instances=4,
        given={"gpu_device_ids": "0;1"},
    )
    assert {config.max_batch_size for config in made.values()} == {16}
    for role in ("preprocessing", "tensorrt_llm"):
        batching = made[role].dynamic_batching
        assert list(batching.preferred_batch_size) == [16]
        assert batching.max_queue_delay_microseconds == 500
        assert batching.default_queue_policy.max_queue_size == 40
    counts = {role: [group.count for group in config.instance_group] for role, config in made.items()}
    assert counts == {"bls": [4], "ensemble": [], "preprocessing": [2], "tensorrt_llm": [2], "postprocessing": [3]}


def test_a_public_model_that_is_not_decoupled_has_processes_for_requests_at_a_time() -> None:
    assert configs(decoupled=True)["bls"].instance_group[0].count == 1
    assert configs(decoupled=False, max_batch_size=64)["bls"].instance_group[0].count == 8
    assert configs(decoupled=False, max_batch_size=4)["bls"].instance_group[0].count == 4


@pytest.mark.parametrize("size", [0, 65])
def test_a_batch_that_the_engine_does_not_take_is_refused(size: int) -> None:
    with pytest.raises(SpecError, match=f"batching.max_batch_size is {size}") as caught:
        configs(max_batch_size=size)
    assert caught.value.expected == "1 to 64, the engine's own"


def test_prompts_longer_than_sequences_are_refused() -> None:
    with pytest.raises(SpecError, match="prompts of 4097 tokens in sequences of 4096") as caught:
        configs(replace(ENGINE, max_input_len=4097))
    assert "--max_seq_len" in caught.value.mend


def test_a_dtype_without_a_tensor_is_refused() -> None:
    with pytest.raises(SpecError, match="the engine's dtype is 'fp4'"):
        configs(replace(ENGINE, logits_dtype="fp4"))
