"""Parameters of the tensorrtllm backend: types, versions, and what the engine rules out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import contract, parameters

ENGINE = EngineSettings("1.2.1", "LlamaForCausalLM", 64, 2048, 4096)
ALWAYS = {
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
    "exclude_input_in_output": "true",
    "gpt_model_type": "inflight_fused_batching",
    "guided_decoding_backend": "",
    "tokenizer_dir": "",
    "xgrammar_tokenizer_info_path": "",
}


def refusal(given: dict[str, Any], version: str = "1.2.1", **engine: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parameters.check(given, version, replace(ENGINE, **engine))
    assert caught.value.expected
    assert caught.value.mend
    return str(caught.value)


def test_only_what_is_set_or_must_exist_is_there() -> None:
    assert parameters.check({}, "1.2.1", ENGINE) == ALWAYS
    assert parameters.check({}, "0.19.0", ENGINE) == ALWAYS
    given = {"kv_cache_free_gpu_mem_fraction": 0.85, "enable_chunked_context": True}
    assert parameters.check(given, "1.2.1", ENGINE) == {
        **ALWAYS,
        "kv_cache_free_gpu_mem_fraction": "0.85",
        "enable_chunked_context": "true",
    }


def test_beams_of_the_engine_are_usable_without_a_word() -> None:
    assert parameters.check({}, "1.2.1", replace(ENGINE, max_beam_width=4))["max_beam_width"] == "4"


def test_names_of_the_template_are_understood() -> None:
    found = parameters.check({"batching_strategy": "V1", "engine_dir": "/engines/a"}, "1.2.1", ENGINE)
    assert found["gpt_model_type"] == "V1"
    assert found["gpt_model_path"] == "/engines/a"
    assert "sets gpt_model_type twice" in refusal({"batching_strategy": "V1", "gpt_model_type": "V1"})


def test_every_parameter_of_every_version_has_a_kind_and_no_other() -> None:
    known = {p.name for v in contract.VERSIONS for p in contract.of(v).models["tensorrt_llm"].parameters}
    assert known == set(parameters.KINDS)


GOOD: list[tuple[str, Any, str]] = [
    ("exclude_input_in_output", False, "false"),
    ("normalize_log_probs", "True", "true"),
    ("max_tokens_in_paged_kv_cache", 100000, "100000"),
    ("kv_cache_host_memory_bytes", 10**11, "100000000000"),
    ("max_attention_window_size", 4096, "4096"),
    ("max_attention_window_size", "256,4096", "256,4096"),
    ("gpu_device_ids", "1", "1"),
    ("gpu_device_ids", "0;1;2", "0;1;2"),
    ("gpu_weights_percent", 1, "1"),
    ("batch_scheduler_policy", "max_utilization", "max_utilization"),
    ("recv_poll_period_ms", 0, "0"),
]


@pytest.mark.parametrize(("name", "value", "text"), GOOD)
def test_values_become_the_text_that_the_backend_reads(name: str, value: Any, text: str) -> None:
    assert parameters.check({name: value}, "1.2.1", ENGINE)[name] == text


BAD: list[tuple[str, Any, str]] = [
    ("exclude_input_in_output", 1, "true or false"),
    ("exclude_input_in_output", "yes", "true or false"),
    ("max_beam_width", 0, "an integer of at least 1"),
    ("max_beam_width", True, "an integer of at least 1"),
    ("max_beam_width", 1.5, "an integer of at least 1"),
    ("max_beam_width", 2**31, "an integer of at least 1"),
    ("kv_cache_host_memory_bytes", -1, "an integer of at least 0"),
    ("kv_cache_free_gpu_mem_fraction", 1.0, "above 0 and below 1"),
    ("kv_cache_free_gpu_mem_fraction", 0, "above 0 and below 1"),
    ("kv_cache_free_gpu_mem_fraction", "90%", "above 0 and below 1"),
    ("kv_cache_free_gpu_mem_fraction", float("nan"), "above 0 and below 1"),
    ("gpu_weights_percent", 1.5, "from 0 to 1"),
    ("batch_scheduler_policy", "max_utilisation", "guaranteed_no_evict, max_utilization"),
    ("gpt_model_type", "v2", "inflight_fused_batching, inflight_batching, V1"),
    ("gpu_device_ids", "0,", "integers, by instance"),
    ("gpu_device_ids", 0.5, "integers, by instance"),
    ("max_attention_window_size", "0", "positive integers"),
    ("medusa_choices", "0, 1", "branches in braces"),
    ("gpt_model_path", "", "a path"),
    ("gpt_model_path", "${engine_dir}", "a path"),
    ("guided_decoding_backend", "outlines", "one of xgrammar"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_value_that_the_backend_would_drop_is_refused(name: str, value: Any, expected: str) -> None:
    text = refusal({name: value})
    assert f"llm.parameters.{name} is" in text
    assert expected in text


def test_unknown_names_are_refused_with_the_nearest_or_the_right_place() -> None:
    assert "did you mean 'kv_cache_free_gpu_mem_fraction'?" in refusal({"kv_cache_free_gpu_memory_fraction": 0.9})
    assert "set llm.decoupled" in refusal({"decoupled_mode": True})
    assert "set batching.max_batch_size" in refusal({"triton_max_batch_size": 8})
    assert "TensorRT-LLM 1.1.0 has no such parameter" in refusal({"enable_trt_overlap": True}, "1.1.0")
    assert parameters.check({"enable_trt_overlap": True}, "1.2.1", ENGINE)["enable_trt_overlap"] == "true"


RULES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"kv_cache_type": "continuous"}, "the engine lacks a paged KV cache (it has continuous)"),
    ({}, {"remove_input_padding": False}, "the engine lacks remove_input_padding"),
    ({}, {"gpt_attention_plugin": False}, "the engine lacks gpt_attention_plugin"),
    ({"enable_chunked_context": True}, {"paged_context_fmha": False}, "without use_paged_context_fmha"),
    ({"enable_kv_cache_reuse": True}, {"paged_context_fmha": False}, "--use_paged_context_fmha enable"),
    (
        {"gpt_model_type": "V1", "kv_cache_free_gpu_mem_fraction": 0.5},
        {"kv_cache_type": "disabled"},
        "the engine's KV cache is disabled",
    ),
    ({"lora_cache_max_adapter_size": 64}, {}, "built without LoRA"),
    ({"lora_cache_max_adapter_size": 4}, {"lora": True}, "lora_cache_optimal_adapter_size is 8"),
    ({"max_beam_width": 2}, {}, "at most 1, the engine's"),
    ({"decoding_mode": "beam_search"}, {}, "beam_search with max_beam_width 1"),
    ({"decoding_mode": "top_k"}, {"max_beam_width": 4}, "top_k with max_beam_width 4"),
    ({"decoding_mode": "medusa"}, {}, "built without speculative decoding"),
    ({"decoding_mode": "eagle"}, {"speculative_decoding": "medusa"}, "built with medusa"),
    (
        {"decoding_mode": "lookahead", "lookahead_window_size": 4},
        {"speculative_decoding": "lookahead_decoding"},
        "lookahead without lookahead_ngram_size, lookahead_verification_set_size",
    ),
    ({"lookahead_ngram_size": 3}, {}, "decoding_mode is not set"),
    ({"medusa_choices": "{0, 0}, {0, 1}"}, {}, "decoding_mode: medusa"),
    ({"encoder_model_path": "/e"}, {}, "only encoder-decoder models read it"),
    ({"guided_decoding_backend": "xgrammar"}, {}, "xgrammar_tokenizer_info_path is not set"),
    ({"num_nodes": 3}, {"tensor_parallel": 4}, "divides the engine's 4 ranks"),
    ({"gpu_device_ids": "0,1;2"}, {"tensor_parallel": 2}, "2 names 1"),
    ({"gpu_device_ids": "0,0"}, {"tensor_parallel": 2}, "2 different for each instance"),
    ({"participant_ids": "1"}, {"pipeline_parallel": 2}, "the engine has 2 ranks"),
]


@pytest.mark.parametrize(("given", "engine", "text"), RULES)
def test_what_the_engine_or_another_parameter_rules_out(
    given: dict[str, Any], engine: dict[str, Any], text: str
) -> None:
    assert text in refusal(given, **engine)


def test_what_the_engine_allows() -> None:
    continuous = replace(ENGINE, kv_cache_type="continuous", paged_context_fmha=False)
    assert parameters.check({"gpt_model_type": "V1"}, "1.2.1", continuous)["gpt_model_type"] == "V1"
    beams = replace(ENGINE, max_beam_width=4)
    assert parameters.check({"decoding_mode": "beam_search"}, "1.2.1", beams)["max_beam_width"] == "4"
    assert parameters.check({"decoding_mode": "top_p", "max_beam_width": 1}, "1.2.1", beams)["max_beam_width"] == "1"
    nodes = replace(ENGINE, tensor_parallel=8, pipeline_parallel=2)
    given = {"num_nodes": 2, "gpu_device_ids": "0,1,2,3,4,5,6,7"}
    assert parameters.check(given, "1.2.1", nodes)["num_nodes"] == "2"
