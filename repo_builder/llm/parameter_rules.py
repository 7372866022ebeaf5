"""Which parameters of the tensorrtllm backend fit an engine and each other."""

from __future__ import annotations

from collections.abc import Mapping

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings

_SPECULATIVE = {
    "medusa": "medusa",
    "redrafter": "explicit_draft_tokens",
    "lookahead": "lookahead_decoding",
    "eagle": "eagle",
}
"""decoding_mode -> the ``--speculative_decoding_mode`` that the engine is built with."""
_LOOKAHEAD = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
_PAGED = (
    *("max_tokens_in_paged_kv_cache", "kv_cache_free_gpu_mem_fraction", "kv_cache_host_memory_bytes"),
    *("kv_cache_onboard_blocks", "enable_kv_cache_reuse"),
)
_LORA = (
    *("lora_cache_optimal_adapter_size", "lora_cache_max_adapter_size", "lora_cache_gpu_memory_fraction"),
    *("lora_cache_host_memory_bytes", "lora_prefetch_dir"),
)
_ENCODER = ("encoder_model_path", "cross_kv_cache_fraction")


def check(texts: Mapping[str, str], given: Mapping[str, str], settings: EngineSettings) -> None:
    """Refuse what the engine or another parameter rules out.

    Args:
        texts: all parameters of the config.
        given: those of them that the user set.

    Raises:
        SpecError: names the parameter and what it needs.
    """
    for name in _ENCODER:
        _refuse(name in given, name, "set, but only encoder-decoder models read it", "none", "leave it out")
    _batching(texts, settings)
    _features(texts, given, settings)
    _decoding(texts, given, settings)
    _devices(given, settings)
    backend, info = (texts.get(key, "") for key in ("guided_decoding_backend", "xgrammar_tokenizer_info_path"))
    _refuse(
        bool(backend) != bool(info),
        "guided_decoding_backend",
        f"{backend or 'not set'} and xgrammar_tokenizer_info_path is {info or 'not set'}",
        "both or neither: the backend ignores one alone",
        "set both",
    )


def _batching(texts: Mapping[str, str], settings: EngineSettings) -> None:
    kind = texts["gpt_model_type"]
    if kind == "V1":
        return
    needs = {
        f"a paged KV cache (it has {settings.kv_cache_type})": settings.kv_cache_type == "paged",
        "remove_input_padding": settings.remove_input_padding,
        "gpt_attention_plugin": settings.gpt_attention_plugin,
    }
    lacking = [need for need, there in needs.items() if not there]
    _refuse(
        bool(lacking),
        "gpt_model_type",
        f"{kind}, but the engine lacks {', '.join(lacking)}",
        "an engine with all three for in-flight batching",
        "build the engine again with --kv_cache_type paged --remove_input_padding enable --gpt_attention_plugin auto, "
        "or set gpt_model_type: V1",
    )


def _features(texts: Mapping[str, str], given: Mapping[str, str], settings: EngineSettings) -> None:
    for name in ("enable_chunked_context", "enable_kv_cache_reuse"):
        _refuse(
            given.get(name) == "true" and not settings.paged_context_fmha,
            name,
            "true, but the engine was built without use_paged_context_fmha",
            "an engine with paged context attention",
            "build it again with --use_paged_context_fmha enable, or leave the parameter out",
        )
    for name in _PAGED:
        _refuse(
            name in given and settings.kv_cache_type != "paged",
            name,
            f"set, but the engine's KV cache is {settings.kv_cache_type}",
            "an engine with a paged KV cache",
            "build it again with --kv_cache_type paged, or leave the parameter out",
        )
    for name in _LORA:
        _refuse(
            name in given and not settings.lora,
            name,
            "set, but the engine was built without LoRA",
            "an engine with lora_plugin",
            "build it again with --lora_plugin auto, or leave the parameter out",
        )
    optimal, largest = (int(texts.get(name, default)) for name, default in zip(_LORA[:2], (8, 64), strict=True))
    _refuse(
        optimal > largest, _LORA[0], f"{optimal}", f"at most {_LORA[1]} ({largest})", "lower it, or raise the other"
    )


def _decoding(texts: Mapping[str, str], given: Mapping[str, str], settings: EngineSettings) -> None:
    beams = int(texts.get("max_beam_width", 1))
    _refuse(
        beams > settings.max_beam_width,
        "max_beam_width",
        f"{beams}",
        f"at most {settings.max_beam_width}, the engine's",
        "lower it, or build the engine with --max_beam_width",
    )
    mode = texts.get("decoding_mode", "")
    wide = mode.startswith("top_") and beams > 1
    _refuse(
        wide or (mode == "beam_search" and beams == 1),
        "decoding_mode",
        f"{mode} with max_beam_width {beams}",
        "beam_search with max_beam_width above 1, and no beams otherwise (the backend would take another mode)",
        "leave decoding_mode out: it follows from max_beam_width",
    )
    needed = _SPECULATIVE.get(mode)
    _refuse(
        bool(needed) and settings.speculative_decoding != needed,
        "decoding_mode",
        f"{mode}, but the engine was built {_built(settings)}",
        f"an engine with --speculative_decoding_mode {needed}",
        "build it so, or leave decoding_mode out",
    )
    missing = [name for name in _LOOKAHEAD if name not in texts]
    _refuse(
        mode == "lookahead" and bool(missing),
        "decoding_mode",
        f"lookahead without {', '.join(missing)}",
        "all three sizes of lookahead decoding",
        "set them",
    )
    for names, wanted in ((_LOOKAHEAD, "lookahead"), (("medusa_choices",), "medusa"), (("eagle_choices",), "eagle")):
        for name in names:
            _refuse(
                name in given and mode != wanted,
                name,
                f"set, but decoding_mode is {mode or 'not set'}",
                f"decoding_mode: {wanted}",
                "set it, or leave the parameter out",
            )


def _built(settings: EngineSettings) -> str:
    return f"with {settings.speculative_decoding}" if settings.speculative_decoding else "without speculative decoding"


def _devices(given: Mapping[str, str], settings: EngineSettings) -> None:
    nodes = int(given.get("num_nodes", 1))
    _refuse(
        settings.world_size % nodes != 0,
        "num_nodes",
        f"{nodes}",
        f"a number that divides the engine's {settings.world_size} ranks",
        "correct it",
    )
    for name, each in (("gpu_device_ids", settings.world_size // nodes), ("participant_ids", settings.world_size)):
        for instance in given[name].split(";") if name in given else ():
            ids = instance.split(",")
            _refuse(
                len(ids) != each or len(set(ids)) != each,
                name,
                f"{given[name]}, where {instance} names {len(set(ids))}",
                f"{each} different for each instance (the engine has {settings.world_size} ranks)",
                "correct it",
            )


def _refuse(wrong: bool, name: str, found: str, expected: str, mend: str) -> None:
    if wrong:
        raise SpecError(f"llm.parameters.{name} is {found}", expected=expected, mend=mend)
