"""``config.json`` of a TensorRT-LLM engine as EngineSettings: the layout since 0.8, and the one before.

Sources: TensorRT-LLM tensorrt_llm/builder.py (EngineConfig, BuildConfig), models/modeling_utils.py
(SpeculativeDecodingMode), cpp/tensorrt_llm/runtime/gptJsonConfig.cpp (both layouts and the names of rank files).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError
from repo_builder.formats.engine_settings import EngineSettings

KV_CACHE_TYPES = ("paged", "continuous", "disabled")
DTYPES = ("float16", "bfloat16", "float32")
_MOST_RANKS = 1 << 14
_SPECULATIVE = {
    2: "draft_tokens_external",
    4: "medusa",
    8: "lookahead_decoding",
    16: "explicit_draft_tokens",
    32: "eagle",
}
"""By the value of SpeculativeDecodingMode, a set of bits; 1 is none."""
_MEND = "copy config.json again from the output folder of trtllm-build"


def is_engine(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is an engine's: a model's has neither of these."""
    return "builder_config" in config or ("build_config" in config and "pretrained_config" in config)


def settings(config: Mapping[str, Any], path: Path) -> EngineSettings:
    """What the file says; ``path`` is for messages.

    Raises:
        SourceCorruptError: a key is missing, or its value is of the wrong kind, negative or contradicts another.
    """
    if not is_engine(config):
        raise SourceCorruptError(
            f"{path} is not an engine's: it has neither build_config with pretrained_config nor builder_config",
            expected="the config.json that trtllm-build writes",
            mend=_MEND,
        )
    whole = _Section(config, "", path)
    found = _modern(whole) if "build_config" in config else _old(whole)
    if found.world_size > _MOST_RANKS:
        raise whole.wrong("world_size", found.world_size, f"at most {_MOST_RANKS} GPUs", "mapping.")
    if found.max_input_len > found.max_seq_len:
        raise whole.wrong(
            "max_input_len", found.max_input_len, f"at most max_seq_len, which is {found.max_seq_len}", "build_config."
        )
    return found


def rank_files(config: Mapping[str, Any], found: EngineSettings) -> tuple[str, ...]:
    """Names of the engines, by rank."""
    if "build_config" in config:
        return tuple(f"rank{rank}.engine" for rank in range(found.world_size))
    builder = config["builder_config"]
    pipeline = f"_pp{found.pipeline_parallel}" if found.pipeline_parallel > 1 else ""
    stem = f"{builder['name']}_{builder['precision']}_tp{found.tensor_parallel}{pipeline}"
    return tuple(f"{stem}_rank{rank}.engine" for rank in range(found.world_size))


def _modern(config: _Section) -> EngineSettings:
    build, model = config.section("build_config"), config.section("pretrained_config")
    plugins = build.section("plugin_config")
    mapping, quantization = model.section("mapping", {}), model.section("quantization", {})
    tensor, pipeline, context = (mapping.size(f"{axis}_size", 1) for axis in ("tp", "pp", "cp"))
    world = mapping.size("world_size", tensor * pipeline * context)
    if world != tensor * pipeline * context:
        raise mapping.wrong("world_size", world, f"tp * pp * cp, which is {tensor * pipeline * context}")
    return EngineSettings(
        version=config.text("version"),
        architecture=model.text("architecture"),
        max_batch_size=build.size("max_batch_size"),
        max_input_len=build.size("max_input_len"),
        max_seq_len=_sequence(build),
        max_num_tokens=build.size("max_num_tokens", 0) or None,
        max_beam_width=build.size("max_beam_width", 1),
        dtype=model.one_of("dtype", DTYPES),
        logits_dtype=model.one_of("logits_dtype", DTYPES, "float32"),
        quantization=quantization.text("quant_algo", ""),
        kv_cache_type=_kv_cache_type(build, plugins),
        remove_input_padding=plugins.flag("remove_input_padding", True),
        gpt_attention_plugin=plugins.plugin("gpt_attention_plugin"),
        context_fmha=_context_fmha(plugins),
        paged_context_fmha=plugins.flag("use_paged_context_fmha", False),
        tokens_per_block=plugins.size("tokens_per_block", 32),
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        context_parallel=context,
        gpus_per_node=mapping.size("gpus_per_node", 8),
        lora=plugins.plugin("lora_plugin"),
        max_prompt_embedding_table_size=build.size("max_prompt_embedding_table_size", 0, least=0),
        gather_context_logits=build.flag("gather_context_logits", False),
        gather_generation_logits=build.flag("gather_generation_logits", False),
        speculative_decoding=_speculative(build),
        max_draft_len=build.size("max_draft_len", 0, least=0),
        vocab_size=model.size("vocab_size", 0, least=0),
    )


def _old(config: _Section) -> EngineSettings:
    builder, plugins = config.section("builder_config"), config.section("plugin_config")
    all_logits = builder.flag("gather_all_token_logits", False)
    dtype = builder.one_of("precision", DTYPES)
    return EngineSettings(
        version="",
        architecture=builder.text("name"),
        max_batch_size=builder.size("max_batch_size"),
        max_input_len=builder.size("max_input_len"),
        max_seq_len=_sequence(builder),
        max_num_tokens=builder.size("max_num_tokens", 0) or None,
        max_beam_width=builder.size("max_beam_width", 1),
        dtype=dtype,
        logits_dtype=builder.one_of("logits_dtype", DTYPES, "float32"),
        kv_cache_type=_kv_cache_type(builder, plugins),
        remove_input_padding=plugins.flag("remove_input_padding", False),
        gpt_attention_plugin=plugins.plugin("gpt_attention_plugin"),
        context_fmha=_context_fmha(plugins),
        paged_context_fmha=plugins.flag("use_paged_context_fmha", False),
        tokens_per_block=plugins.size("tokens_per_block", 64),
        tensor_parallel=builder.size("tensor_parallel", 1),
        pipeline_parallel=builder.size("pipeline_parallel", 1),
        lora=plugins.plugin("lora_plugin"),
        max_prompt_embedding_table_size=builder.size("max_prompt_embedding_table_size", 0, least=0),
        gather_context_logits=builder.flag("gather_context_logits", all_logits),
        gather_generation_logits=builder.flag("gather_generation_logits", all_logits),
        speculative_decoding="draft_tokens_external" if builder.size("max_draft_len", 0, least=0) else "",
        max_draft_len=builder.size("max_draft_len", 0, least=0),
        vocab_size=builder.size("vocab_size", 0, least=0),
    )


def _sequence(build: _Section) -> int:
    """``max_seq_len``; before 0.11 there were the prompt's and the answer's lengths."""
    if "max_seq_len" in build.values or "max_output_len" not in build.values:
        return build.size("max_seq_len")
    return build.size("max_input_len") + build.size("max_output_len")


def _kv_cache_type(build: _Section, plugins: _Section) -> str:
    """``PAGED`` and so on; before 0.12 a boolean of the plugins."""
    if build.values.get("kv_cache_type") is not None:
        return build.one_of("kv_cache_type", KV_CACHE_TYPES, fold=True)
    return "paged" if plugins.flag("paged_kv_cache", "build_config" in build.place) else "continuous"


def _context_fmha(plugins: _Section) -> bool:
    """A boolean; a number before 0.9 (0: off)."""
    given = plugins.values.get("context_fmha", plugins.values.get("context_fmha_type", 0))
    if isinstance(given, bool | int):
        return bool(given)
    return plugins.flag("context_fmha", False)


def _speculative(build: _Section) -> str:
    given = build.values.get("speculative_decoding_mode")
    if isinstance(given, int) and not isinstance(given, bool):
        if given not in (0, 1, *_SPECULATIVE):
            raise build.wrong("speculative_decoding_mode", given, f"one of 1, {', '.join(map(str, _SPECULATIVE))}")
        return _SPECULATIVE.get(given, "")
    if given is None:
        return "draft_tokens_external" if build.size("max_draft_len", 0, least=0) else ""
    name = build.text("speculative_decoding_mode").rpartition(".")[2].lower()
    if name not in ("", "none", *_SPECULATIVE.values()):
        raise build.wrong("speculative_decoding_mode", given, f"one of none, {', '.join(_SPECULATIVE.values())}")
    return "" if name == "none" else name


_REQUIRED: Any = object()


@dataclass(frozen=True)
class _Section:
    """One object of config.json; ``place`` is its key with a dot, for messages."""

    values: Mapping[str, Any]
    place: str
    path: Path

    def section(self, key: str, default: Any = _REQUIRED) -> _Section:
        found = self._get(key, default)
        if not isinstance(found, Mapping):
            raise self.wrong(key, found, "an object")
        return _Section(found, f"{self.place}{key}.", self.path)

    def size(self, key: str, default: Any = _REQUIRED, *, least: int = 1) -> int:
        found = self._get(key, default)
        if found is default:
            return int(found)
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self.wrong(key, found, f"an integer of {least} or more")
        return found

    def flag(self, key: str, default: bool) -> bool:
        found = self._get(key, default)
        if not isinstance(found, bool):
            raise self.wrong(key, found, "true or false")
        return found

    def plugin(self, key: str) -> bool:
        """Whether a plugin is on: its dtype; off are null, false and ``disable``."""
        found = self._get(key, None)
        if found is not None and not isinstance(found, bool | str):
            raise self.wrong(key, found, "a dtype, true, false or null")
        return bool(found) and found != "disable"

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        found = self._get(key, default)
        if not isinstance(found, str):
            raise self.wrong(key, found, "a string")
        return found

    def one_of(self, key: str, choices: tuple[str, ...], default: Any = _REQUIRED, *, fold: bool = False) -> str:
        found = self.text(key, default)
        found = found.rpartition(".")[2].lower() if fold else found
        if found not in choices:
            raise self.wrong(key, found, "one of " + ", ".join(choices))
        return found

    def wrong(self, key: str, found: Any, expected: str, place: str | None = None) -> SourceCorruptError:
        where = f"{self.place if place is None else place}{key}"
        return SourceCorruptError(f"{self.path}: {where} is {found!r}", expected=expected, mend=_MEND)

    def _get(self, key: str, default: Any) -> Any:
        """The value; null counts as missing."""
        found = self.values.get(key)
        if found is None:
            if default is _REQUIRED:
                raise SourceCorruptError(
                    f"{self.path} has no {self.place}{key}",
                    expected="the config.json that trtllm-build writes, with every key",
                    mend=_MEND,
                )
            return default
        return found
