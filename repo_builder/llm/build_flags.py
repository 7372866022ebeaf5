"""The flags of trtllm-build, by TensorRT-LLM version: which there are, what values they take, and what was given.

Sources: TensorRT-LLM tensorrt_llm/commands/build.py and tensorrt_llm/plugin/plugin.py at 0.19 and 1.2.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from repo_builder.errors import SpecError, nearest

Value = str | int | bool | tuple[str, ...]

_ON = ("enable", "disable")
_DTYPE = ("auto", "float16", "float32", "bfloat16", "int32", "disable")
_FLAGS: dict[str, type | tuple[str, ...]] = {
    **dict.fromkeys(("model_config", "build_config", "model_cls_file", "model_cls_name"), str),
    **dict.fromkeys(("input_timing_cache", "output_timing_cache", "visualize_network", "log_level"), str),
    **dict.fromkeys(("max_batch_size", "max_input_len", "max_seq_len", "max_beam_width", "max_num_tokens"), int),
    **dict.fromkeys(("opt_num_tokens", "max_encoder_input_len", "max_prompt_embedding_table_size"), int),
    **dict.fromkeys(("workers", "max_lora_rank", "max_draft_len", "tokens_per_block"), int),
    **dict.fromkeys(("strip_plan", "weight_sparsity", "weight_streaming", "fast_build"), bool),
    **dict.fromkeys(("enable_debug_output", "dry_run", "monitor_memory"), bool),
    **dict.fromkeys(("gather_context_logits", "gather_generation_logits", "gather_all_token_logits"), bool),
    **dict.fromkeys(("lora_dir", "lora_target_modules"), tuple),
    "kv_cache_type": ("continuous", "paged", "disabled"),
    "profiling_verbosity": ("layer_names_only", "detailed", "none"),
    "logits_dtype": ("float16", "float32"),
    "lora_ckpt_source": ("hf", "nemo"),
    "speculative_decoding_mode": (
        *("draft_tokens_external", "lookahead_decoding", "medusa", "explicit_draft_tokens", "eagle"),
    ),
    **dict.fromkeys(("bert_attention_plugin", "gpt_attention_plugin", "lora_plugin", "dora_plugin"), _DTYPE),
    **dict.fromkeys(("moe_plugin", "mamba_conv1d_plugin", "nccl_plugin", "gemm_allreduce_plugin"), _DTYPE),
    "gemm_plugin": (*_DTYPE, "fp8", "nvfp4"),
    **dict.fromkeys(("gemm_swiglu_plugin", "low_latency_gemm_plugin"), ("fp8", "disable")),
    "low_latency_gemm_swiglu_plugin": ("fp8", "disable"),
    "fp8_rowwise_gemm_plugin": _DTYPE,
    **dict.fromkeys(("context_fmha", "bert_context_fmha_fp32_acc", "remove_input_padding"), _ON),
    **dict.fromkeys(("use_paged_context_fmha", "use_fp8_context_fmha", "fuse_fp4_quant", "multiple_profiles"), _ON),
    **dict.fromkeys(("paged_state", "norm_quant_fusion", "reduce_fusion", "user_buffer"), _ON),
    **dict.fromkeys(("use_fused_mlp", "pp_reduce_scatter"), _ON),
}
_UNTIL_1_0: dict[str, type | tuple[str, ...]] = {
    **{"auto_parallel": int, "gpus_per_node": int, "cluster_key": str},
    "streamingllm": _ON,
}
_OURS = {
    **{"checkpoint_dir": "nothing: the checkpoint is made of the source", "output_dir": "nothing: the model's folder"},
    **{"tp_size": "llm.tp", "pp_size": "llm.pp", "world_size": "llm.tp and llm.pp", "dtype": "llm.dtype"},
}
"""What others set: the option of the spec that does."""
_ALSO = {"max_decoder_seq_len": "max_seq_len", "max_multimodal_len": "max_prompt_embedding_table_size"}


def known(version: str) -> Mapping[str, type | tuple[str, ...]]:
    """The flags of a TensorRT-LLM version (0.19 or newer), without the dashes, and what each takes.

    ``bool`` is a switch without a value, ``tuple`` takes several words, a tuple of strings lists the choices.
    """
    return {**_FLAGS, **(_UNTIL_1_0 if _order(version) < (1, 1) else {})}


def words(flags: Iterable[str]) -> list[str]:
    """Flags as a spec gives them (``--a b``, ``--a=b``, or each word alone), as single words."""
    found: list[str] = []
    for given in flags:
        try:
            parts = shlex.split(given)
        except ValueError as error:
            raise SpecError(f"build_flags: {given!r} is no words ({error})", expected="--flag value") from error
        for word in parts:
            name, equals, value = word.partition("=")
            found += [name, value] if equals and name.startswith("-") else [word]
    return found


def parsed(flags: Iterable[str], version: str) -> dict[str, Value]:
    """The flags by name, their values checked.

    Raises:
        SpecError: a flag is unknown, given twice, set by another option, or its value is none that it takes.
    """
    taken, found = known(version), dict[str, Value]()
    for name, values in _grouped(words(flags)):
        name = _ALSO.get(name, name)
        if name in _OURS:
            raise SpecError(
                f"build_flags: --{name} is not for build_flags", expected=_OURS[name], mend=f"leave --{name} out there"
            )
        if name not in taken:
            raise SpecError(
                f"build_flags: trtllm-build of TensorRT-LLM {version} has no --{name}{nearest(name, list(taken))}",
                expected="one of " + ", ".join(f"--{flag}" for flag in sorted(taken)),
                mend="correct or leave it out; flags of other versions are not passed on",
            )
        if name in found:
            raise SpecError(f"build_flags: --{name} is given twice", expected="once", mend="leave one out")
        found[name] = _value(name, values, taken[name])
    return found


def argv(flags: Mapping[str, Value]) -> list[str]:
    """Words of a command line; a switch that is off is left out."""
    found: list[str] = []
    for name, value in flags.items():
        if value is not False:
            found += [f"--{name}", *(value if isinstance(value, tuple) else [] if value is True else [str(value)])]
    return found


def _grouped(given: list[str]) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for word in given:
        if word.startswith("-") and not word.lstrip("-").isdigit():
            groups.append((word.lstrip("-"), []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise SpecError(f"build_flags begins with {word!r}", expected="a flag: --name", mend="put the flag first")
    return groups


def _value(name: str, values: list[str], takes: type | tuple[str, ...]) -> Value:
    def wrong(expected: str) -> SpecError:
        found = " ".join(values) or "nothing"
        return SpecError(f"build_flags: --{name} has {found}", expected=expected, mend="correct it in llm.build_flags")

    if takes is bool:
        if values:
            raise wrong("no value: it is a switch")
        return True
    if takes is tuple:
        if not values:
            raise wrong("one or more words")
        return tuple(values)
    if len(values) != 1:
        raise wrong("one value" if not isinstance(takes, tuple) else "one of " + ", ".join(takes))
    if takes is int:
        least = 0 if name in ("max_draft_len", "max_prompt_embedding_table_size") else 1
        if not values[0].isascii() or not values[0].isdigit() or int(values[0]) < least:
            raise wrong(f"an integer of {least} or more")
        return int(values[0])
    if isinstance(takes, tuple) and values[0] not in takes:
        raise wrong("one of " + ", ".join(takes))
    return values[0]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
