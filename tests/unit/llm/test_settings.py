"""What an engine that is to be built can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder import releases
from repo_builder.errors import SpecError, TargetError, UnknownTaskError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import settings, source
from repo_builder.spec import ModelSpec
from tests.unit.llm.llm_folders import CHATGLM2, LLAMA, folder


def planned(path: Path, target: str = "26.07", max_batch_size: int | None = None, **llm: Any) -> EngineSettings:
    batching = {} if max_batch_size is None else {"max_batch_size": max_batch_size}
    model = ModelSpec.model_validate({"source": str(path), "engine": "tensorrt-llm", "llm": llm, "batching": batching})
    return settings.planned(model, source.read(path), releases.release(target))


def test_the_defaults_are_those_of_trtllm_build(tmp_path: Path) -> None:
    assert planned(folder(tmp_path, LLAMA)) == EngineSettings(
        version="1.2.1",
        architecture="LlamaForCausalLM",
        max_batch_size=2048,
        max_input_len=4095,
        max_seq_len=4096,
        max_num_tokens=8192,
        dtype="bfloat16",
        vocab_size=32000,
    )
    assert planned(folder(tmp_path, LLAMA), "25.05").version == "0.19.0"
    assert planned(folder(tmp_path, {**LLAMA, "max_position_embeddings": 512})).max_input_len == 511


def test_the_longest_prompt_is_what_the_server_takes(tmp_path: Path) -> None:
    """Of a packed engine a step and the sequence bound it; of others trtllm-build's max_input_len of 1024."""
    long = folder(tmp_path, {**LLAMA, "max_position_embeddings": 131072})
    assert planned(long).max_input_len == 8192
    assert planned(long, max_num_tokens=4096).max_input_len == 4096
    assert planned(long, build_flags=("--remove_input_padding disable",)).max_input_len == 1024
    assert planned(long, max_input_len=2048).max_input_len == 2048
    assert planned(long, max_input_len=2048).longest_prompt == 8192


def test_what_turns_paged_context_fmha_off(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    assert planned(path, quantization="fp8", kv_cache_dtype="fp8").paged_context_fmha
    assert not planned(path, kv_cache_dtype="fp8").paged_context_fmha
    assert not planned(path, kv_cache_dtype="int8").paged_context_fmha
    assert not planned(path, build_flags=("--use_paged_context_fmha disable",)).paged_context_fmha


def test_options_and_flags_are_taken_over(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    found = planned(
        path, max_batch_size=8, tp=4, pp=2, dtype="float16", quantization="int4_awq", max_input_len=100, max_seq_len=200
    )
    assert (found.max_batch_size, found.max_input_len, found.max_seq_len) == (8, 100, 200)
    assert (found.world_size, found.dtype, found.quantization) == (8, "float16", "W4A16_AWQ")
    flags = ("--lora_plugin auto", "--gather_context_logits", "--tokens_per_block=64", "--logits_dtype float16")
    found = planned(path, build_flags=(*flags, "--max_batch_size 4", "--context_fmha disable"))
    assert (found.lora, found.gather_context_logits, found.tokens_per_block) == (True, True, 64)
    assert (found.logits_dtype, found.max_batch_size, found.paged_context_fmha) == ("float16", 4, False)


@pytest.mark.parametrize(("told", "found"), [("float32", "float16"), ("bfloat16", "bfloat16"), (None, "float16")])
def test_auto_resolves_as_the_conversion_scripts_do(tmp_path: Path, told: str | None, found: str) -> None:
    assert planned(folder(tmp_path, {**LLAMA, "torch_dtype": told})).dtype == found


def test_a_target_without_tensorrt_llm_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, LLAMA)
    with pytest.raises(
        TargetError, match=r"26\.08 has no image with TensorRT-LLM's engines: they were removed"
    ) as error:
        planned(path, "26.08")
    assert error.value.mend == "take --target 26.07, or --engine llmapi"
    with pytest.raises(
        TargetError, match=r"24\.10 has TensorRT-LLM 0\.14\.0, whose build scripts are not known"
    ) as error:
        planned(path, "24.10")
    assert error.value.mend == "take --target 26.07"
    with pytest.raises(TargetError, match=r"24\.01 has no image"):
        planned(path, "24.01")


def test_an_architecture_that_tensorrt_llm_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match=r"for the architecture LlamaForCausalL \(did you mean 'Llama") as error:
        planned(folder(tmp_path, {**LLAMA, "architectures": ["LlamaForCausalL"]}))
    assert "ChatGLMModel" in error.value.expected
    assert error.value.mend == "serve it with --engine llmapi or --engine vllm"


@pytest.mark.parametrize(
    ("config", "options", "found", "expected"),
    [
        (LLAMA, {"max_input_len": 300, "max_seq_len": 200}, "max_input_len is 300, and max_seq_len 200", "at most"),
        (LLAMA, {"max_seq_len": 5000}, "max_seq_len is 5000, and the model has 4096 positions", "at most 4096"),
        (LLAMA, {"max_batch_size": 0}, "batching.max_batch_size is 0", "1 or more"),
        (LLAMA, {"tp": 3}, "tp is 3, and the model has 32 attention heads", "1, 2, 4, 8, 16, 32"),
        (LLAMA, {"pp": 64}, "pp is 64, and the model has 32 layers", "at most 32"),
        ({**LLAMA, "num_key_value_heads": 6}, {"tp": 4}, "6 key and value heads", "one that divides the other"),
        (CHATGLM2, {"pp": 2}, "pp is 2, and TensorRT-LLM splits ChatGLMModel into no pipeline stages", "pp: 1"),
        ({**LLAMA, "max_position_embeddings": None}, {}, "does not tell how long a sequence may be", "llm.max_seq_len"),
        (
            LLAMA,
            {"max_seq_len": 64, "build_flags": ["--max_seq_len 65"]},
            "64 as an option and 65 in",
            "one of the two",
        ),
        (LLAMA, {"build_flags": ["--gather_context_logits --max_draft_len 4"]}, "are both set", "one of them"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, config: dict[str, Any], options: dict[str, Any], found: str, expected: str
) -> None:
    with pytest.raises(SpecError) as error:
        planned(folder(tmp_path, config), **options)
    assert found in error.value.found
    assert expected in error.value.expected
    assert error.value.mend


def test_scaled_positions_count(tmp_path: Path) -> None:
    scaled = folder(tmp_path, {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert planned(scaled, max_seq_len=8192).max_seq_len == 8192
    told = {**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 1024}}
    assert planned(folder(tmp_path, told)).max_seq_len == 4096


def test_an_engine_of_another_version_is_refused() -> None:
    engine = EngineSettings("1.2.0", "LlamaForCausalLM", 1, 1, 2)
    with pytest.raises(TargetError, match=r"built by TensorRT-LLM 1\.2\.0, and Triton 26\.07 has 1\.2\.1") as error:
        settings.check_version(engine, releases.release("26.07"))
    assert error.value.mend == "take --target 26.03, or build the engine again of the Hugging Face folder"
    settings.check_version(engine, releases.release("26.03"))
    settings.check_version(EngineSettings("1.0.3", "LlamaForCausalLM", 1, 1, 2), releases.release("25.11"))
    with pytest.raises(TargetError, match=r"a TensorRT-LLM before 0\.8, and Triton 26\.08 has none"):
        settings.check_version(EngineSettings("", "chatglm2_6b", 1, 1, 2), releases.release("26.08"))
