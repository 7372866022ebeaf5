"""TensorRT-LLM engine folders; the engines themselves are stand-ins of a few bytes, since nobody opens them here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import formats
from repo_builder.errors import SignatureError, SourceCorruptError, SourceMissingError, TensorRTMissingError
from repo_builder.formats import huggingface, tensorrt_llm_engine
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.tensors import TensorSpec

MODERN: dict[str, Any] = {
    "version": "1.2.1",
    "pretrained_config": {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "logits_dtype": "float32",
        "vocab_size": 32000,
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        "mapping": {"world_size": 4, "tp_size": 2, "pp_size": 2, "cp_size": 1, "gpus_per_node": 8},
    },
    "build_config": {
        "max_input_len": 1024,
        "max_seq_len": 4096,
        "max_batch_size": 64,
        "max_beam_width": 4,
        "max_num_tokens": 8192,
        "max_prompt_embedding_table_size": 0,
        "kv_cache_type": "PAGED",
        "gather_context_logits": False,
        "gather_generation_logits": False,
        "max_draft_len": 0,
        "speculative_decoding_mode": 1,
        "lora_config": {"lora_dir": [], "max_lora_rank": 64},
        "plugin_config": {
            "gpt_attention_plugin": "auto",
            "lora_plugin": None,
            "paged_kv_cache": True,
            "remove_input_padding": True,
            "context_fmha": True,
            "tokens_per_block": 32,
            "use_paged_context_fmha": True,
        },
    },
}
OLD: dict[str, Any] = {
    "builder_config": {
        "name": "chatglm2_6b",
        "precision": "float16",
        "tensor_parallel": 2,
        "pipeline_parallel": 1,
        "vocab_size": 65024,
        "max_batch_size": 8,
        "max_beam_width": 1,
        "max_input_len": 1024,
        "max_output_len": 512,
        "max_num_tokens": None,
        "gather_all_token_logits": False,
    },
    "plugin_config": {
        "gpt_attention_plugin": "float16",
        "lora_plugin": False,
        "paged_kv_cache": True,
        "remove_input_padding": True,
        "tokens_per_block": 64,
    },
}


def engine(folder: Path, config: Any, *ranks: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in ranks:
        (folder / name).write_bytes(b"engine stand-in")
    return folder


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with one value replaced; ``del`` removes the key."""
    config = copy.deepcopy(config)
    *path, last = key.split(".")
    section = config
    for part in path:
        section = section[part]
    if value is del_:
        del section[last]
    else:
        section[last] = value
    return config


del_ = object()
RANKS = [f"rank{rank}.engine" for rank in range(4)]


def settings(folder: Path) -> EngineSettings:
    return EngineSettings(**tensorrt_llm_engine.describe(folder).facts["engine"])


def test_a_folder_of_today_is_read_whole(tmp_path: Path) -> None:
    path = engine(tmp_path / "engine", MODERN, *RANKS)
    assert formats.detect(str(path)) == ("tensorrt_llm_engine", path)
    artifact = tensorrt_llm_engine.describe(path)
    assert artifact.files == ("config.json", *RANKS)
    assert artifact.facts["layout"] == "build_config"
    assert artifact.facts["world_size"] == 4
    assert EngineSettings(**artifact.facts["engine"]) == EngineSettings(
        version="1.2.1",
        architecture="LlamaForCausalLM",
        max_batch_size=64,
        max_input_len=1024,
        max_seq_len=4096,
        max_num_tokens=8192,
        max_beam_width=4,
        dtype="bfloat16",
        quantization="FP8",
        tensor_parallel=2,
        pipeline_parallel=2,
        vocab_size=32000,
    )
    assert json.loads(json.dumps(artifact.facts)) == artifact.facts


def test_the_layout_before_0_8(tmp_path: Path) -> None:
    ranks = [f"chatglm2_6b_float16_tp2_rank{rank}.engine" for rank in range(2)]
    path = engine(tmp_path / "engine", OLD, *ranks)
    assert formats.detect(str(path))[0] == "tensorrt_llm_engine"
    assert tensorrt_llm_engine.describe(path).files == tuple(sorted(("config.json", *ranks)))
    found = settings(path)
    assert (found.version, found.max_seq_len, found.tensor_parallel, found.tokens_per_block) == ("", 1536, 2, 64)
    assert found.kv_cache_type == "paged"
    assert not found.context_fmha
    assert not found.lora
    piped = changed(OLD, "builder_config.pipeline_parallel", 2)
    ranks = [f"chatglm2_6b_float16_tp2_pp2_rank{rank}.engine" for rank in range(4)]
    assert settings(engine(tmp_path / "piped", piped, *ranks)).world_size == 4


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("build_config.kv_cache_type", "CONTINUOUS", "kv_cache_type", "continuous"),
        ("build_config.kv_cache_type", "KVCacheType.DISABLED", "kv_cache_type", "disabled"),
        ("build_config.kv_cache_type", del_, "kv_cache_type", "paged"),
        ("build_config.plugin_config.lora_plugin", "auto", "lora", True),
        ("build_config.plugin_config.gpt_attention_plugin", None, "gpt_attention_plugin", False),
        ("build_config.speculative_decoding_mode", 4, "speculative_decoding", "medusa"),
        ("build_config.speculative_decoding_mode", 32, "speculative_decoding", "eagle"),
        (
            "build_config.speculative_decoding_mode",
            "SpeculativeDecodingMode.LOOKAHEAD_DECODING",
            "speculative_decoding",
            "lookahead_decoding",
        ),
        ("build_config.speculative_decoding_mode", "NONE", "speculative_decoding", ""),
        ("pretrained_config.logits_dtype", "float16", "logits_dtype", "float16"),
        ("pretrained_config.quantization.quant_algo", None, "quantization", ""),
        ("build_config.max_num_tokens", None, "max_num_tokens", None),
    ],
)
def test_values_of_a_config(tmp_path: Path, key: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(settings(engine(tmp_path, changed(MODERN, key, value), *RANKS)), field) == expected


def test_a_packed_engine_takes_prompts_longer_than_max_input_len(tmp_path: Path) -> None:
    on = changed(MODERN, "build_config.plugin_config.context_fmha", True)
    assert settings(engine(tmp_path, on, *RANKS)).longest_prompt == 4095
    on = changed(on, "build_config.max_num_tokens", 2000)
    assert settings(engine(tmp_path, on, *RANKS)).longest_prompt == 2000
    off = changed(on, "build_config.plugin_config.remove_input_padding", False)
    assert settings(engine(tmp_path, off, *RANKS)).longest_prompt == 1024


def test_a_boolean_told_of_paging_before_there_were_types(tmp_path: Path) -> None:
    config = changed(MODERN, "build_config.kv_cache_type", del_)
    config = changed(config, "build_config.plugin_config.paged_kv_cache", False)
    assert settings(engine(tmp_path, config, *RANKS)).kv_cache_type == "continuous"
    draft = changed(changed(MODERN, "build_config.max_draft_len", 5), "build_config.speculative_decoding_mode", del_)
    assert settings(engine(tmp_path, draft, *RANKS)).speculative_decoding == "draft_tokens_external"


@pytest.mark.parametrize(
    ("key", "value", "found", "expected"),
    [
        ("build_config.max_batch_size", -1, "build_config.max_batch_size is -1", "an integer of 1 or more"),
        ("build_config.max_batch_size", "64", "build_config.max_batch_size is '64'", "an integer of 1 or more"),
        ("build_config.max_batch_size", True, "build_config.max_batch_size is True", "an integer of 1 or more"),
        ("build_config.max_seq_len", 4096.5, "max_seq_len is 4096.5", "an integer"),
        ("build_config.max_seq_len", 512, "max_input_len is 1024", "at most max_seq_len, which is 512"),
        ("build_config.max_input_len", del_, "has no build_config.max_input_len", "with every key"),
        ("build_config.plugin_config", del_, "has no build_config.plugin_config", "with every key"),
        ("build_config.plugin_config", [], "build_config.plugin_config is []", "an object"),
        ("build_config.plugin_config.remove_input_padding", "yes", "remove_input_padding is 'yes'", "true or false"),
        ("build_config.kv_cache_type", "SWAPPED", "kv_cache_type is 'swapped'", "one of paged, continuous, disabled"),
        ("build_config.speculative_decoding_mode", 3, "speculative_decoding_mode is 3", "one of 1, 2, 4"),
        ("build_config", "no", "build_config is 'no'", "an object"),
        ("pretrained_config.dtype", 16, "pretrained_config.dtype is 16", "a string"),
        ("pretrained_config.dtype", "int3", "pretrained_config.dtype is 'int3'", "one of float16"),
        ("pretrained_config.mapping.world_size", 3, "mapping.world_size is 3", "tp * pp * cp, which is 4"),
        ("pretrained_config.mapping", {"tp_size": 1 << 30}, "mapping.world_size is 1073741824", "at most 16384 GPUs"),
        ("version", del_, "has no version", "with every key"),
    ],
)
def test_a_config_that_is_wrong_is_told(tmp_path: Path, key: str, value: Any, found: str, expected: str) -> None:
    with pytest.raises(SourceCorruptError) as error:
        tensorrt_llm_engine.describe(engine(tmp_path, changed(MODERN, key, value), *RANKS))
    assert found in error.value.found
    assert expected in error.value.expected
    assert "trtllm-build" in error.value.mend


def test_missing_and_empty_ranks_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"lacks the engines of rank 1, 3 \(rank1.engine, ...\)") as error:
        tensorrt_llm_engine.describe(engine(tmp_path / "a", MODERN, "rank0.engine", "rank2.engine"))
    assert error.value.expected == "4 engines: config.json says tp 2, pp 2, cp 1"
    path = engine(tmp_path / "b", MODERN, *RANKS)
    (path / "rank2.engine").write_bytes(b"")
    with pytest.raises(SourceCorruptError, match=r"rank2\.engine is empty"):
        tensorrt_llm_engine.describe(path)
    (path / "rank2.engine").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(SourceCorruptError, match="git-lfs pointer"):
        tensorrt_llm_engine.describe(path)


def test_a_truncated_config_beside_engines_is_told_as_such(tmp_path: Path) -> None:
    path = engine(tmp_path, json.dumps(MODERN)[:80], *RANKS)
    assert formats.detect(str(path))[0] == "tensorrt_llm_engine"
    with pytest.raises(SourceCorruptError, match=r"config\.json is not JSON"):
        tensorrt_llm_engine.describe(path)


def test_a_model_is_no_engine_and_an_engine_no_model(tmp_path: Path) -> None:
    model = engine(tmp_path / "model", {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    assert formats.detect(str(model))[0] == "huggingface"
    with pytest.raises(SourceCorruptError, match="neither build_config with pretrained_config nor builder_config"):
        tensorrt_llm_engine.describe(model)
    with pytest.raises(SourceMissingError):
        huggingface.describe(engine(tmp_path / "engine", MODERN, *RANKS))
    half = engine(tmp_path / "half", {"build_config": {}, "model_type": "llama"})
    assert not tensorrt_llm_engine.matches(half)
    assert not tensorrt_llm_engine.matches(engine(tmp_path / "cut", "{"))


def test_lora_folders_and_managed_weights_travel_with_the_engine(tmp_path: Path) -> None:
    one = changed(MODERN, "pretrained_config.mapping", {"world_size": 1, "tp_size": 1, "pp_size": 1})
    path = engine(tmp_path, one, "rank0.engine", "rank0_managed_weights.safetensors", "notes.txt")
    (path / "lora" / "0").mkdir(parents=True)
    (path / "lora" / "0" / "adapter_config.json").write_text("{}")
    assert tensorrt_llm_engine.describe(path).files == (
        "config.json",
        "lora/0/adapter_config.json",
        "rank0.engine",
        "rank0_managed_weights.safetensors",
    )


def test_an_engine_runs_in_tensorrt_llm_only(tmp_path: Path) -> None:
    artifact = tensorrt_llm_engine.describe(engine(tmp_path / "engine", MODERN, *RANKS))
    with pytest.raises(TensorRTMissingError, match="the engine engine cannot compute a reference"):
        tensorrt_llm_engine.run(artifact, {"input_ids": np.zeros((1, 1), np.int32)})
    with pytest.raises(SignatureError, match="`inputs:` is given for a TensorRT-LLM engine"):
        tensorrt_llm_engine.describe(artifact.path, [TensorSpec("x", "FP32", (1,))])
