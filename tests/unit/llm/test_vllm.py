"""The vllm layout: the config that the backend would complete, and model.json with its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repo_builder import releases
from repo_builder.errors import RepoBuilderError, SpecError, TargetError, UnsafeSourceError
from repo_builder.llm import vllm
from repo_builder.llm.source import LanguageModel
from repo_builder.spec import ModelSpec

VERSION = "0.24.0+092c4842.nv26.7.57386851"


@pytest.fixture
def language(tmp_path: Path) -> LanguageModel:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 12}', encoding="utf-8")
    return LanguageModel(tmp_path, "llama", ("LlamaForCausalLM",), 1000, 2048, "bfloat16", (2,), 2)


def asked(llm: dict[str, Any] | None = None, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"source": "folder", "engine": "vllm", "llm": llm or {}, **fields})


def written(model: ModelSpec, language: LanguageModel, version: str = VERSION) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vllm.model_json(model, language, "/models/chat/1/weights", version))
    return found


def test_the_config_holds_all_that_the_backend_completes() -> None:
    config = vllm.config("chat", parameters={"bos_text": "<s>"}, version=VERSION)
    assert (config.backend, config.max_batch_size, config.model_transaction_policy.decoupled) == ("vllm", 0, True)
    assert [(group.count, group.kind == group.KIND_MODEL) for group in config.instance_group] == [(1, True)]
    assert [(tensor.name, tensor.optional) for tensor in config.input] == [
        ("text_input", False),
        ("image", True),
        ("stream", True),
        ("sampling_parameters", True),
        ("exclude_input_in_output", True),
        ("return_finish_reason", True),
        ("return_cumulative_logprob", True),
        ("return_logprobs", True),
        ("return_num_input_tokens", True),
        ("return_num_output_tokens", True),
        ("embedding_request", True),
    ]
    assert {tensor.name: list(tensor.dims) for tensor in config.output} == {
        "text_output": [-1],
        "finish_reason": [-1],
        "cumulative_logprob": [-1],
        "logprobs": [-1],
        "num_input_tokens": [1],
        "num_output_tokens": [-1],
    }
    assert config.parameters["bos_text"].string_value == "<s>"


def test_the_embedding_input_came_with_release_25_11() -> None:
    for name, has in (("25.10", False), ("25.11", True)):
        version = str(releases.release(name).image("vllm-python-py3").vllm)
        inputs = [tensor.name for tensor in vllm.config("chat", parameters={}, version=version).input]
        assert ("embedding_request" in inputs) is has


def test_an_older_backend_and_one_response_are_refused() -> None:
    with pytest.raises(TargetError, match=r"vLLM 0\.5\.5 of the target is older"):
        vllm.config("chat", parameters={}, version="0.5.5")
    with pytest.raises(SpecError, match=r"llm\.decoupled is false, and the vllm backend serves decoupled models only"):
        vllm.config("chat", parameters={}, version=VERSION, decoupled=False)


def test_only_what_is_set_is_written(language: LanguageModel) -> None:
    assert written(asked(), language) == {
        "model": "/models/chat/1/weights",
        "dtype": "auto",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
    }


def test_every_option_finds_its_argument(language: LanguageModel) -> None:
    options = {
        **{"dtype": "float16", "quantization": "fp8_pc_pt", "kv_cache_dtype": "int8", "tp": 4, "pp": 2},
        **{"max_seq_len": 1024, "max_num_tokens": 4096, "kv_cache_fraction": 0.8},
        "engine_args": {"enforce_eager": True, "dtype": "bfloat16"},
    }
    found = written(asked(options, batching={"max_batch_size": 64}, trust_remote_code=True), language)
    assert found == {
        "model": "/models/chat/1/weights",
        "dtype": "bfloat16",
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "quantization": "fp8_per_channel",
        "kv_cache_dtype": "int8_per_token_head",
        "max_model_len": 1024,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 4096,
        "gpu_memory_utilization": 0.8,
        "trust_remote_code": True,
        "enforce_eager": True,
    }
    assert set(found) <= (vllm.known_arguments(VERSION) or set())


@pytest.mark.parametrize(
    ("llm", "kind", "text"),
    [
        ({"quantization": "int4_awq"}, SpecError, "int4_awq, which vLLM 0.24.0.* does not make of unquantized weights"),
        (
            {"engine_args": {"max_model_length": 9}},
            SpecError,
            r"has no 'max_model_length' \(did you mean 'max_model_len",
        ),
        ({"engine_args": {"swap_space": 4}}, SpecError, r"AsyncEngineArgs of vLLM 0\.24\.0.* has no 'swap_space'"),
        ({"engine_args": {"hf_token": "x"}}, SpecError, "hf_token would stand in the repository"),
        ({"engine_args": {"trust_remote_code": True}}, UnsafeSourceError, "run Python code that comes with the model"),
        ({"max_seq_len": 4096}, SpecError, "is 4096, and the model has 2048 positions"),
        ({"max_num_tokens": 8, "engine_args": {"max_num_seqs": 9}}, SpecError, "is 8, and max_num_seqs .* is 9"),
        ({"tp": 4, "pp": 4}, SpecError, r"tp \* pp is 16, and a machine has 8 GPUs"),
        ({"tp": 5}, SpecError, "is 5, and the model has 12 attention heads"),
        ({"max_beam_width": 2}, SpecError, "max_beam_width has no effect on engine vllm: vLLM's engine has no beam"),
        ({"build_flags": ["--workers=1"]}, SpecError, "build_flags has no effect on engine vllm"),
        ({"parameters": {"max_beam_width": 1}}, SpecError, "parameters has no effect on engine vllm"),
    ],
)
def test_what_vllm_does_not_have_is_refused(
    language: LanguageModel, llm: dict[str, Any], kind: type[RepoBuilderError], text: str
) -> None:
    with pytest.raises(kind, match=text) as refused:
        written(asked(llm), language)
    assert refused.value.expected or refused.value.mend


def test_quantization_that_came_later_names_what_the_target_has(language: LanguageModel) -> None:
    with pytest.raises(SpecError, match=r"fp8_pc_pt, which vLLM 0\.19\.0 does not make(.|\n)*expected: one of fp8, or"):
        written(asked({"quantization": "fp8_pc_pt"}), language, "0.19.0")
    with pytest.raises(SpecError, match=r"int8, which vLLM 0\.22\.1 does not have"):
        written(asked({"kv_cache_dtype": "int8"}), language, "0.22.1")


def test_several_machines_need_a_word_to_vllm(language: LanguageModel) -> None:
    options = {"tp": 4, "pp": 4, "engine_args": {"distributed_executor_backend": "ray"}}
    assert written(asked(options), language)["distributed_executor_backend"] == "ray"


def test_every_release_from_26_01_on_has_its_table() -> None:
    newer = [name for name in releases.names() if name >= "26.01"]
    assert newer
    for name in newer:
        known = vllm.known_arguments(str(releases.release(name).image("vllm-python-py3").vllm))
        assert known is not None
        assert {"model", "dtype", "tensor_parallel_size", "max_model_len", "gpu_memory_utilization"} <= known
    assert vllm.known_arguments("0.32.0") is not None
    assert vllm.known_arguments("0.11.0") is None


def test_names_for_a_vllm_without_a_table_pass(language: LanguageModel) -> None:
    assert written(asked({"engine_args": {"swap_space": 4}}), language, "0.11.0")["swap_space"] == 4
