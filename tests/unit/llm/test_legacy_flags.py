"""Flags of TensorRT-LLM 0.7 and before."""

from __future__ import annotations

from typing import Any

import pytest

from repo_builder.errors import SpecError
from repo_builder.llm import build_flags
from repo_builder.llm.legacy_flags import translated
from repo_builder.spec import LlmOptions


@pytest.mark.parametrize(
    ("old", "now", "note"),
    [
        ("--parallel_build", "--workers 1", "--parallel_build: became --workers 1: one for each GPU"),
        (
            "--use_inflight_batching",
            "--kv_cache_type paged --remove_input_padding enable --gpt_attention_plugin auto",
            "--use_inflight_batching: is implied by the paged KV cache",
        ),
        ("--enable_context_fmha", "--context_fmha enable", "--enable_context_fmha: became --context_fmha enable"),
        (
            "--use_gemm_plugin float16",
            "--gemm_plugin float16",
            "--use_gemm_plugin float16: became --gemm_plugin float16",
        ),
        ("--use_gpt_attention_plugin", "--gpt_attention_plugin auto", "became --gpt_attention_plugin auto"),
        ("--use_lora_plugin bfloat16", "--lora_plugin bfloat16", "became --lora_plugin bfloat16"),
        ("--paged_kv_cache", "--kv_cache_type paged", "became --kv_cache_type paged"),
        ("--paged_kv_cache disable", "--kv_cache_type continuous", "became --kv_cache_type continuous"),
        ("--remove_input_padding", "--remove_input_padding enable", "became --remove_input_padding enable"),
        (
            "--max_input_len 512 --max_output_len 256",
            "--max_input_len 512 --max_seq_len 768",
            "prompt (512) and answer",
        ),
        ("--max_output_len 256", "--max_seq_len 1280", "prompt (1024) and answer"),
        ("--enable_context_fmha_fp32_acc", "", "llm.parameters: {enable_context_fmha_fp32_acc: true}"),
        ("--use_rmsnorm_plugin float16", "", "is left out: the plugin is gone"),
        ("-m chatglm2_6b", "", "is left out: the architecture is read from config.json"),
        ("--model_dir a --output_dir b", "", "is left out: the source is the model's folder"),
        ("--tp_size 1 --world_size 1", "", "--tp_size 1: is llm.tp now"),
    ],
)
def test_each_old_flag_becomes_one_of_today(old: str, now: str, note: str) -> None:
    words, notes = translated([old])
    assert words == tuple(now.split())
    assert note in notes[0]
    assert build_flags.parsed(words, "1.2.1") is not None


def test_flags_of_today_pass_without_a_note() -> None:
    today = "--remove_input_padding enable --gemm_plugin auto --max_seq_len 4096 --lora_dir a b --fast_build"
    assert translated([today]) == (tuple(today.split()), ())


def test_what_is_given_wins_over_what_is_implied() -> None:
    words, _ = translated(["--use_inflight_batching", "--use_gpt_attention_plugin float16", "--paged_kv_cache"])
    assert build_flags.parsed(words, "1.2.1") == {
        "remove_input_padding": "enable",
        "gpt_attention_plugin": "float16",
        "kv_cache_type": "paged",
    }


@pytest.mark.parametrize(
    ("flag", "options", "option"),
    [
        ("--dtype float16", {"dtype": "float16"}, "llm.dtype"),
        ("--use_weight_only", {"quantization": "int8_wo"}, "llm.quantization"),
        ("--use_weight_only --weight_only_precision int4", {"quantization": "int4_wo"}, "llm.quantization"),
        ("--int8_kv_cache", {"kv_cache_dtype": "int8"}, "llm.kv_cache_dtype"),
        ("--world_size 8", {"tp": 4, "pp": 2}, "llm.tp * llm.pp"),
    ],
)
def test_flags_that_options_stand_for(flag: str, options: dict[str, Any], option: str) -> None:
    words, notes = translated([flag], LlmOptions(**options))
    assert words == ()
    assert all(note.endswith(f"is {option} now") for note in notes)
    with pytest.raises(SpecError, match="is not for trtllm-build") as error:
        translated([flag], LlmOptions(dtype="bfloat16"))
    assert error.value.expected.startswith(option)
    assert error.value.mend.startswith(f"set {option} to ")
