"""What an engine that is to be built can do: the options of the spec over the defaults of trtllm-build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from repo_builder import releases
from repo_builder.errors import SpecError, TargetError
from repo_builder.formats import source_file
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import architectures, build_flags, legacy_flags
from repo_builder.llm.source import LanguageModel
from repo_builder.spec import ModelSpec

FLAVOUR = "trtllm-python-py3"
OLDEST = (0, 19)
"""The oldest TensorRT-LLM whose scripts and flags are known here."""
QUANT_ALGO = {
    **{"fp8": "FP8", "fp8_pc_pt": "FP8_PER_CHANNEL_PER_TOKEN", "nvfp4": "NVFP4", "int8_sq": "W8A8_SQ_PER_CHANNEL"},
    **{"int4_awq": "W4A16_AWQ", "w4a8_awq": "W4A8_AWQ", "int8_wo": "W8A16", "int4_wo": "W4A16"},
}
"""By the spec's quantization: what the engine's config.json calls it."""
_MAX_BATCH_SIZE, _MAX_INPUT_LEN, _MAX_NUM_TOKENS = 2048, 1024, 8192
"""Defaults of trtllm-build."""


def planned(model: ModelSpec, language: LanguageModel, release: releases.Release) -> EngineSettings:
    """The engine that ``llm.build_commands.recipe`` builds.

    Raises:
        TargetError: the target's image has no TensorRT-LLM, or one whose scripts are not known here.
        UnknownTaskError: TensorRT-LLM has no conversion for the architecture.
        SpecError: sizes or parallelism that contradict each other or the model.
    """
    version = version_of(release)
    architectures.script(language)
    options = model.llm
    flags, _ = flags_of(model, version)
    positions = _positions(language)
    longest = _chosen("max_seq_len", flags, options.max_seq_len, positions)
    if longest is None:
        raise SpecError(
            f"config.json of {language.folder.name} does not tell how long a sequence may be",
            expected="llm.max_seq_len: the longest prompt and answer together, in tokens",
            mend="set it (--max-seq-len)",
        )
    prompt = _chosen("max_input_len", flags, options.max_input_len, None)
    settings = EngineSettings(
        version=version,
        architecture=language.architectures[0],
        max_batch_size=_chosen("max_batch_size", flags, model.batching.max_batch_size, _MAX_BATCH_SIZE),
        max_input_len=min(_MAX_INPUT_LEN, longest) if prompt is None else prompt,
        max_seq_len=longest,
        max_num_tokens=_chosen("max_num_tokens", flags, options.max_num_tokens, _MAX_NUM_TOKENS),
        max_beam_width=_chosen(
            "max_beam_width", flags, options.max_beam_width if options.max_beam_width > 1 else None, 1
        ),
        dtype=dtype(options.dtype, language),
        logits_dtype=str(flags.get("logits_dtype", "float32")),
        quantization=QUANT_ALGO.get(options.quantization or "", ""),
        kv_cache_type=str(flags.get("kv_cache_type", "paged")),
        remove_input_padding=flags.get("remove_input_padding") != "disable",
        gpt_attention_plugin=flags.get("gpt_attention_plugin") != "disable",
        context_fmha=flags.get("context_fmha") != "disable",
        paged_context_fmha=_paged_context_fmha(model, flags),
        tokens_per_block=_integer(flags, "tokens_per_block", 32),
        tensor_parallel=options.tp,
        pipeline_parallel=options.pp,
        gpus_per_node=options.gpus_per_node,
        lora=flags.get("lora_plugin", "disable") != "disable",
        max_prompt_embedding_table_size=_integer(flags, "max_prompt_embedding_table_size", 0),
        gather_context_logits=bool(flags.get("gather_context_logits") or flags.get("gather_all_token_logits")),
        gather_generation_logits=bool(flags.get("gather_generation_logits") or flags.get("gather_all_token_logits")),
        speculative_decoding=str(flags.get("speculative_decoding_mode", "")),
        max_draft_len=_integer(flags, "max_draft_len", 0),
        vocab_size=language.vocab_size,
    )
    if prompt is None:
        settings = replace(settings, max_input_len=settings.longest_prompt)
    _check(settings, language, positions)
    return settings


def flags_of(model: ModelSpec, version: str) -> tuple[dict[str, build_flags.Value], tuple[str, ...]]:
    """``llm.build_flags`` in today's names, checked, and the notes on those of 0.7."""
    words, notes = legacy_flags.translated(model.llm.build_flags, model.llm)
    return build_flags.parsed(words, version), notes


def version_of(release: releases.Release) -> str:
    """TensorRT-LLM in the target's image.

    Raises:
        TargetError: there is none, or one older than ``OLDEST``.
    """
    image = release.images.get(FLAVOUR)
    version = image.tensorrt_llm if image else None
    having = [name for name in releases.names() if FLAVOUR in releases.release(name).images]
    if version is None:
        gone = having and release.name > having[-1]
        raise TargetError(
            f"Triton {release.name} has no image with TensorRT-LLM's engines"
            + (": they were removed after 26.07" if gone else ""),
            expected=f"a target from 25.05 to {having[-1]}",
            mend=f"take --target {having[-1]}" + (", or --engine llmapi" if gone else ""),
        )
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise TargetError(
            f"Triton {release.name} has TensorRT-LLM {version}, whose build scripts are not known here",
            expected="TensorRT-LLM 0.19 or newer, which Triton has since 25.05",
            mend=f"take --target {having[-1]}",
        )
    return version


def check_version(settings: EngineSettings, release: releases.Release) -> None:
    """An engine loads only in the TensorRT-LLM that built it.

    Raises:
        TargetError: the target's image has another version.
    """
    image = release.images.get(FLAVOUR)
    has = image.tensorrt_llm if image else None
    if has and same_version(has, settings.version):
        return
    images = {name: releases.release(name).images.get(FLAVOUR) for name in releases.names()}
    fitting = [name for name, one in images.items() if one and same_version(one.tensorrt_llm or "", settings.version)]
    built = f"TensorRT-LLM {settings.version}" if settings.version else "a TensorRT-LLM before 0.8"
    raise TargetError(
        f"the engine was built by {built}, and Triton {release.name} has {has or 'none'}",
        expected="the same version: engines load in no other",
        mend=(f"take --target {fitting[-1]}, or " if fitting else "")
        + "build the engine again of the Hugging Face folder",
    )


def same_version(one: str, other: str) -> bool:
    """Whether two versions of TensorRT-LLM are the same but for a fourth part (``1.0.3.2510``), which names a build."""
    return one.split(".")[:3] == other.split(".")[:3]


def dtype(asked: str, language: LanguageModel) -> str:
    """As the conversion scripts resolve ``auto``: the weights' own, but float16 for float32 or where none is told."""
    if asked != "auto":
        return asked
    return language.dtype if language.dtype in ("float16", "bfloat16") else "float16"


def _positions(language: LanguageModel) -> int | None:
    """Tokens of the longest sequence, stretched where config.json scales the rotary positions by a factor."""
    if language.max_positions is None:
        return None
    config = source_file.read_json(language.folder / "config.json")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    factor = scaling.get("factor") if isinstance(scaling, Mapping) else None
    original = scaling.get("original_max_position_embeddings") if isinstance(scaling, Mapping) else None
    if not isinstance(factor, int | float) or isinstance(factor, bool) or factor <= 1 or original:
        return language.max_positions
    return int(language.max_positions * factor)


def _paged_context_fmha(model: ModelSpec, flags: Mapping[str, Any]) -> bool:
    """On by default; trtllm-build turns it off with what it does not go with (tensorrt_llm/builder.py, build)."""
    cache, quantization = model.llm.kv_cache_dtype, model.llm.quantization
    off = cache == "int8" or (cache == "fp8" and quantization not in ("fp8", "w4a8_awq", "nvfp4"))
    return not off and "disable" not in (flags.get("use_paged_context_fmha"), flags.get("context_fmha"))


def _chosen(name: str, flags: Mapping[str, Any], option: int | None, default: int | None) -> Any:
    """A size of an option or of a flag, which must agree."""
    given = flags.get(name)
    if given is not None and option is not None and given != option:
        raise SpecError(
            f"{name} is {option} as an option and {given} in build_flags",
            expected="one of the two",
            mend=f"leave --{name} out of llm.build_flags",
        )
    return next((value for value in (option, given, default) if value is not None), None)


def _integer(flags: Mapping[str, Any], name: str, default: int) -> int:
    return int(flags.get(name, default))


def _check(settings: EngineSettings, language: LanguageModel, positions: int | None) -> None:
    if settings.max_batch_size < 1:
        raise SpecError(
            "batching.max_batch_size is 0",
            expected="1 or more: an engine takes batches",
            mend="set it, or leave it out",
        )
    if settings.max_input_len > settings.max_seq_len:
        raise SpecError(
            f"max_input_len is {settings.max_input_len}, and max_seq_len {settings.max_seq_len}",
            expected="max_input_len at most max_seq_len: a prompt is part of the sequence",
            mend="raise max_seq_len or lower max_input_len",
        )
    if positions is not None and settings.max_seq_len > positions:
        raise SpecError(
            f"max_seq_len is {settings.max_seq_len}, and the model has {positions} positions",
            expected=f"at most {positions}",
            mend="lower max_seq_len",
        )
    if settings.gather_context_logits and settings.max_draft_len:
        raise SpecError(
            "gather_context_logits and max_draft_len are both set",
            expected="one of them: an engine that verifies drafts gathers no logits of the prompt",
            mend="leave one out of llm.build_flags",
        )
    architectures.check_parallel(language, settings.tensor_parallel, settings.pipeline_parallel)
