"""Config and model.yaml of the layout ``llmapi``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from repo_builder import releases, spec
from repo_builder.errors import SpecError, TargetError, UnsafeSourceError
from repo_builder.llm import contract, llmapi
from repo_builder.llm.source import LanguageModel

LANGUAGE = LanguageModel(Path("m"), "llama", ("LlamaForCausalLM",), 100, 512, "bfloat16", (1,), 0)


def written(version: str = "1.2.1", *, trust: bool = False, size: int | None = None, **options: Any) -> dict[str, Any]:
    model = spec.from_flags(
        "m", engine="llmapi", llm=options, batching={"max_batch_size": size}, trust_remote_code=trust
    ).models[0]
    found = yaml.safe_load(llmapi.model_yaml(model, LANGUAGE, "/models/m/1/weights", version))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", ["0.19.0", "1.0.3", "1.2.1"])
def test_the_config_has_the_tensors_of_the_shipped_model(version: str) -> None:
    config = llmapi.config("m", parameters={"chat_template": "{{ x }}"}, version=version, decoupled=True)
    table = contract.of(version).models["llmapi"]
    assert [t.name for t in config.input] == [t.name for t in table.inputs]
    assert [(t.name, list(t.dims)) for t in config.output] == [(t.name, list(t.dims)) for t in table.outputs]
    required = {t.name for t in config.input if not t.optional}
    assert required == {t.name for t in table.inputs if not t.optional}
    assert config.max_batch_size == 0
    assert config.model_transaction_policy.decoupled
    assert config.parameters["chat_template"].string_value == "{{ x }}"
    releases.check_config(config, releases.release("26.07"))


def test_older_names_of_beams_belong_to_older_versions() -> None:
    made = {v: llmapi.config("m", parameters={}, version=v, decoupled=True) for v in ("0.19", "1.2")}
    names = {version: {tensor.name for tensor in config.input} for version, config in made.items()}
    assert "sampling_param_beam_width" in names["0.19"] - names["1.2"]
    assert "sampling_param_best_of" in names["1.2"] - names["0.19"]


def test_options_become_arguments() -> None:
    found = written(
        size=16, tp=2, dtype="bfloat16", max_input_len=64, max_seq_len=128, kv_cache_fraction=0.8, decoupled=False,
        engine_args={"enable_chunked_prefill": True},
    )  # fmt: skip
    assert found["triton_config"] == {"max_batch_size": 0, "decoupled": False, "cancellation_check_period_ms": 100}
    assert (found["model"], found["backend"]) == ("/models/m/1/weights", "pytorch")
    assert (found["tensor_parallel_size"], found["max_batch_size"], found["max_seq_len"]) == (2, 16, 128)
    assert found["kv_cache_config"] == {"free_gpu_memory_fraction": 0.8}
    assert found["enable_chunked_prefill"] is True


def test_no_batch_size_is_left_to_the_llm_api() -> None:
    assert "max_batch_size" not in written(size=0)


def test_arguments_of_one_version_only() -> None:
    assert written("0.19.0", engine_args={"pytorch_backend_config": {}})["pytorch_backend_config"] == {}
    with pytest.raises(SpecError, match="no 'pytorch_backend_config'"):
        written("1.2.1", engine_args={"pytorch_backend_config": {}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine_args": {"max_seqlen": 5}}, "did you mean 'max_seq_len'"),
        ({"engine_args": {"triton_config": {}}}, "no 'triton_config'"),
        ({"quantization": "int4_awq"}, "quantizes nothing while it loads"),
        ({"build_flags": ["--workers", "2"]}, "builds no engine"),
        ({"parameters": {"decoding_mode": "top_k"}}, "the tensorrtllm backend's"),
        ({"max_input_len": 600}, "512 tokens"),
    ],
)
def test_what_the_llm_api_does_not_have_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        written(**options)


def test_remote_code_is_not_let_in_by_the_side() -> None:
    with pytest.raises(UnsafeSourceError):
        written(engine_args={"trust_remote_code": True})
    assert written(trust=True)["trust_remote_code"] is True


def test_a_target_without_a_table_is_refused() -> None:
    with pytest.raises(TargetError):
        llmapi.config("m", parameters={}, version="0.15.0", decoupled=True)
