"""Parameters of the tensorrtllm backend: which there are, what each takes, which exclude each other.

The backend reads each as text and mostly warns and falls back to its default where it cannot (model_state.cc and
model_instance_state.cc of TensorRT-LLM's Triton backend), so that a wrong value would go unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from repo_builder.errors import SpecError, nearest
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import contract, parameter_rules

Value = bool | int | float | str

TEMPLATE_NAMES = {
    "batching_strategy": "gpt_model_type",
    "engine_dir": "gpt_model_path",
    "encoder_engine_dir": "encoder_model_path",
}
"""Variables of the shipped template -> the parameters that they fill; both names are taken."""
ELSEWHERE = {
    "triton_backend": "nothing: it is tensorrtllm",
    "triton_max_batch_size": "batching.max_batch_size",
    "decoupled_mode": "llm.decoupled",
    "max_queue_size": "config.dynamic_batching.default_queue_policy.max_queue_size",
    "max_queue_delay_microseconds": "config.dynamic_batching.max_queue_delay_microseconds",
    "logits_datatype": "nothing: it is read from the engine",
    "encoder_input_features_data_type": "nothing: it is read from the engine",
    "prompt_embedding_table_data_type": "nothing: it is read from the engine",
}
"""Variables of the shipped template that are no parameters -> what to set instead."""


@dataclass(frozen=True)
class Kind:
    """What a parameter takes; ``text`` gives a value as the backend reads it, or None where it does not fit."""

    expected: str
    text: Callable[[Value], str | None]


def check(parameters: Mapping[str, Value], version: str, settings: EngineSettings) -> dict[str, str]:
    """The parameters of the ``tensorrt_llm`` model as text: those given and those that must stand there.

    The latter are what the backend refuses to load without, ``gpt_model_type`` (inflight_fused_batching where it is
    not given), ``max_beam_width`` of an engine with beams, and ``exclude_input_in_output`` (true where it is not
    given, so that an answer is the same text streamed and whole). ``gpt_model_path`` is left to the model's name.

    Args:
        version: of TensorRT-LLM.
        settings: of the engine that the parameters are for.

    Raises:
        SpecError: an unknown parameter, a value that the backend would not take, or a value that the engine or
            another parameter rules out.
        TargetError: TensorRT-LLM of that version is not known.
    """
    terms = contract.of(version).models["tensorrt_llm"].parameters
    known = {parameter.name for parameter in terms}
    texts = {p.name: "" if p.placeholder else p.value for p in terms if p.required or (p.value and not p.placeholder)}
    texts |= {"gpt_model_type": "inflight_fused_batching", "exclude_input_in_output": "true"}
    if settings.max_beam_width > 1:
        texts["max_beam_width"] = str(settings.max_beam_width)
    given: dict[str, str] = {}
    for name, value in parameters.items():
        parameter = TEMPLATE_NAMES.get(name, name)
        if parameter not in known:
            raise _unknown(name, version, known)
        if parameter in given:
            raise SpecError(
                f"llm.parameters sets {parameter} twice", expected="one of the two names", mend=f"leave {name} out"
            )
        given[parameter] = _text(name, KINDS[parameter], value)
    parameter_rules.check({**texts, **given}, given, settings)
    merged = {**texts, **given}
    return {p.name: merged[p.name] for p in terms if p.name in merged}


def _unknown(name: str, version: str, known: set[str]) -> SpecError:
    if name in ELSEWHERE:
        return SpecError(
            f"llm.parameters.{name} is no parameter of the backend, but a field of the config",
            expected="parameters of the tensorrtllm backend",
            mend=f"set {ELSEWHERE[name]}",
        )
    if name in KINDS:
        return SpecError(
            f"llm.parameters.{name}: TensorRT-LLM {version} has no such parameter",
            expected="one of " + ", ".join(sorted(known)),
            mend="leave it out, or target a newer release",
        )
    return SpecError(
        f"llm.parameters.{name}: the tensorrtllm backend has no such parameter{nearest(name, sorted(known))}",
        expected="one of " + ", ".join(sorted(known)),
        mend="correct the name",
    )


def _text(name: str, kind: Kind, value: Value) -> str:
    text = kind.text(value.strip() if isinstance(value, str) else value)
    if text is None or "${" in text:
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        raise SpecError(
            f"llm.parameters.{name} is {shown}",
            expected=kind.expected,
            mend="correct the value: the backend would take its default for it, or not load",
        )
    return text


def _boolean(value: Value) -> str | None:
    text = str(value).lower()
    return text if isinstance(value, (bool, str)) and text in ("true", "false") else None


def _integer(low: int, high: int = 2**31 - 1) -> Kind:
    def text(value: Value) -> str | None:
        digits = str(value)
        whole = not isinstance(value, bool) and re.fullmatch(r"\d+", digits)
        return digits if whole and low <= int(digits) <= high else None

    return Kind(f"an integer of at least {low}", text)


def _fraction(expected: str, fits: Callable[[float], bool]) -> Kind:
    def text(value: Value) -> str | None:
        if isinstance(value, bool) or not re.fullmatch(r"\d*\.?\d+([eE]-?\d+)?|\d+\.", str(value)):
            return None
        return str(value) if fits(float(value)) else None

    return Kind(expected, text)


def _choice(*names: str) -> Kind:
    return Kind(
        "one of " + ", ".join(names), lambda value: value if isinstance(value, str) and value in names else None
    )


def _pattern(pattern: str, expected: str) -> Kind:
    def text(value: Value) -> str | None:
        return str(value) if not isinstance(value, (bool, float)) and re.fullmatch(pattern, str(value)) else None

    return Kind(expected, text)


_BOOLEAN = Kind("true or false", _boolean)
_COUNT = _integer(0)
_POSITIVE = _integer(1)
_BYTES = _integer(0, 2**64 - 1)
_SHARE = _fraction("a number above 0 and below 1", lambda share: 0 < share < 1)
_SHARE_OR_ALL = _fraction("a number from 0 to 1", lambda share: 0 <= share <= 1)
_PATH = _pattern(r"[^\n]+", "a path")
_DEVICES = _pattern(r"\d+(,\d+)*(;\d+(,\d+)*)*", "integers, by instance: 0,1;2,3")
_TREE = _pattern(r"\{\d+(, *\d+)*\}(, *\{\d+(, *\d+)*\})*", "branches in braces: {0, 0, 0}, {0, 1}")

KINDS: dict[str, Kind] = {
    "gpt_model_type": _choice("inflight_fused_batching", "inflight_batching", "V1"),
    "gpt_model_path": _PATH,
    "encoder_model_path": _PATH,
    "executor_worker_path": _PATH,
    "lora_prefetch_dir": _PATH,
    "tokenizer_dir": _PATH,
    "xgrammar_tokenizer_info_path": _PATH,
    "guided_decoding_backend": _choice("xgrammar"),
    "FORCE_CPU_ONLY_INPUT_TENSORS": _choice("no", "yes"),
    "batch_scheduler_policy": _choice("guaranteed_no_evict", "max_utilization"),
    "decoding_mode": _choice(
        *("top_k", "top_p", "top_k_top_p", "beam_search"), *("medusa", "redrafter", "lookahead", "eagle")
    ),
    "gpu_device_ids": _DEVICES,
    "participant_ids": _DEVICES,
    "max_attention_window_size": _pattern(r"[1-9]\d*(,[1-9]\d*)*", "positive integers: 4096, or by layer 256,4096"),
    "medusa_choices": _TREE,
    "eagle_choices": _TREE,
    "kv_cache_free_gpu_mem_fraction": _SHARE,
    "cross_kv_cache_fraction": _SHARE,
    "lora_cache_gpu_memory_fraction": _SHARE,
    "gpu_weights_percent": _SHARE_OR_ALL,
    "kv_cache_host_memory_bytes": _BYTES,
    "lora_cache_host_memory_bytes": _BYTES,
    **dict.fromkeys(("max_beam_width", "max_tokens_in_paged_kv_cache", "sink_token_length", "num_nodes"), _POSITIVE),
    **dict.fromkeys(("lora_cache_optimal_adapter_size", "lora_cache_max_adapter_size"), _POSITIVE),
    **dict.fromkeys(("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size"), _POSITIVE),
    **dict.fromkeys(("cancellation_check_period_ms", "stats_check_period_ms"), _POSITIVE),
    **dict.fromkeys(("iter_stats_max_iterations", "request_stats_max_iterations", "recv_poll_period_ms"), _COUNT),
    "cuda_graph_cache_size": _COUNT,
    **dict.fromkeys(("kv_cache_onboard_blocks", "enable_kv_cache_reuse", "enable_chunked_context"), _BOOLEAN),
    **dict.fromkeys(("exclude_input_in_output", "normalize_log_probs", "enable_trt_overlap"), _BOOLEAN),
    **dict.fromkeys(("enable_context_fmha_fp32_acc", "multi_block_mode", "cuda_graph_mode"), _BOOLEAN),
    "speculative_decoding_fast_logits": _BOOLEAN,
}
"""By parameter. Limits: executor/kvCacheConfig.cpp of TensorRT-LLM (a fraction lies strictly between 0 and 1) and
docs/model_config.md of tensorrtllm_backend."""
