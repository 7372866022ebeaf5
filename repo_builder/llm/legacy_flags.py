"""Flags of the ``build.py`` scripts of TensorRT-LLM 0.7 and before, as those of trtllm-build, with a note for each.

Sources: TensorRT-LLM examples/chatglm/build.py at v0.7.1, tensorrt_llm/commands/build.py since 0.8, release notes.
"""

from __future__ import annotations

from collections.abc import Sequence

from repo_builder.errors import SpecError
from repo_builder.llm.build_flags import words
from repo_builder.spec import LlmOptions

_ON = {
    "enable_context_fmha": "context_fmha",
    "remove_input_padding": "remove_input_padding",
    "use_paged_context_fmha": "use_paged_context_fmha",
}
_DROPPED = {
    **dict.fromkeys(("m", "model_name"), "the architecture is read from config.json"),
    **dict.fromkeys(("model_dir", "hf_model_dir"), "the source is the model's folder"),
    "output_dir": "the engine goes into the repository",
    "strongly_typed": "networks are strongly typed since 0.15",
    "use_custom_all_reduce": "the way to reduce over GPUs is chosen when the engine runs",
    "enable_xqa": "its kernels are chosen by themselves since 0.16",
    "attention_qk_half_accumulation": "the option is gone",
    **dict.fromkeys(("use_rmsnorm_plugin", "use_layernorm_plugin", "use_lookup_plugin"), "the plugin is gone"),
    **dict.fromkeys(("lookup_plugin", "use_context_fmha_for_generation"), "the option is gone"),
    **dict.fromkeys(("visualize", "random_seed"), "it has no effect on the engine"),
}
_AT_RUN_TIME = {
    **dict.fromkeys(("enable_context_fmha_fp32_acc", "context_fmha_fp32_acc"), "enable_context_fmha_fp32_acc"),
    **dict.fromkeys(("enable_multi_block_mode", "multi_block_mode"), "multi_block_mode"),
}
"""Parameters of the backend since 0.12."""


def translated(
    flags: Sequence[str], options: LlmOptions | None = None, *, max_input_len: int = 1024
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags of trtllm-build as single words, and a note for every flag that was another one.

    Args:
        flags: as in ``llm.build_flags``; those of today are passed on as they are.
        options: the model's other options, which flags like ``--dtype`` must not contradict.
        max_input_len: the longest prompt, where neither flags nor options tell it (``--max_output_len`` adds to it).

    Raises:
        SpecError: a flag that an option of the spec stands for, which says otherwise.
    """
    options = options or LlmOptions()
    groups = _groups(words(flags))
    lengths = [int(value) for name, value in groups if name == "max_input_len" and value.isdigit()]
    longest = lengths[0] if lengths else options.max_input_len or max_input_len
    found, notes = list[str](), list[str]()
    for name, value in groups:
        now, note = _one(name, value, options, longest, [other for other, _ in groups])
        found += now
        if note:
            notes.append(f"--{name}{f' {value}' if value else ''}: {note}")
    return tuple(found), tuple(notes)


def _one(name: str, value: str, options: LlmOptions, longest: int, names: Sequence[str]) -> tuple[list[str], str]:
    """Words of today for one flag, and the note; empty where the flag is of today."""
    world = options.tp * options.pp
    if name == "parallel_build":
        return ["--workers", str(world)], f"became --workers {world}: one for each GPU"
    if name in ("use_inflight_batching", "use_gpt_attention_plugin_and_inflight_batching"):
        implied = {"kv_cache_type": "paged", "remove_input_padding": "enable", "gpt_attention_plugin": "auto"}
        old = {"paged_kv_cache": "kv_cache_type", "use_gpt_attention_plugin": "gpt_attention_plugin"}
        given = {old.get(other, other) for other in names}
        added = [word for flag, on in implied.items() if flag not in given for word in (f"--{flag}", on)]
        return added, "is implied by the paged KV cache, packed input and the attention plugin, which are set"
    if name in _ON and value in ("", "enable", "disable"):
        now = f"--{_ON[name]} {value or 'enable'}"
        return now.split(), "" if name == _ON[name] and value else f"became {now}"
    if name.startswith("use_") and name.endswith("_plugin") and name not in _DROPPED:
        now = f"--{name.removeprefix('use_')} {value or 'auto'}"
        return now.split(), f"became {now}"
    if name == "paged_kv_cache":
        now = "--kv_cache_type " + ("continuous" if value == "disable" else "paged")
        return now.split(), f"became {now}"
    if name == "max_output_len" and value.isdigit():
        now = f"--max_seq_len {longest + int(value)}"
        return now.split(), f"became {now}: prompt ({longest}) and answer together"
    if name in _AT_RUN_TIME:
        return [], f"is a parameter of the backend now: llm.parameters: {{{_AT_RUN_TIME[name]}: true}}"
    if name in _DROPPED:
        return [], f"is left out: {_DROPPED[name]}"
    if name in _moved(options):
        return [], _same(name, value, options)
    return [f"--{name}", *value.split()], ""


def _moved(options: LlmOptions) -> dict[str, tuple[str, str, str]]:
    """Flag -> the option that stands for it, what it says, and what the flag without a value means."""
    weight_only = options.quantization or "none"
    precision = {"int8_wo": "int8", "int4_wo": "int4"}.get(weight_only, weight_only)
    return {
        "dtype": ("llm.dtype", options.dtype, ""),
        "tp_size": ("llm.tp", str(options.tp), ""),
        "pp_size": ("llm.pp", str(options.pp), ""),
        "world_size": ("llm.tp * llm.pp", str(options.tp * options.pp), ""),
        "use_weight_only": (
            "llm.quantization",
            weight_only,
            weight_only if weight_only in ("int8_wo", "int4_wo") else "int8_wo",
        ),
        "weight_only_precision": ("llm.quantization", precision, "int8"),
        "use_smooth_quant": ("llm.quantization", weight_only, "int8_sq"),
        "enable_fp8": ("llm.quantization", weight_only, "fp8"),
        "int8_kv_cache": ("llm.kv_cache_dtype", options.kv_cache_dtype or "none", "int8"),
        "fp8_kv_cache": ("llm.kv_cache_dtype", options.kv_cache_dtype or "none", "fp8"),
    }


def _same(name: str, value: str, options: LlmOptions) -> str:
    option, says, alone = _moved(options)[name]
    asked = value or alone
    if asked != says:
        raise SpecError(
            f"build_flags: --{name}{f' {value}' if value else ''} is not for trtllm-build: {option} stands for it, "
            f"and is {says}",
            expected=f"{option}: {asked}",
            mend=f"set {option} to {asked}, and leave --{name} out of llm.build_flags",
        )
    return f"is {option} now"


def _groups(given: Sequence[str]) -> list[tuple[str, str]]:
    groups: list[tuple[str, str]] = []
    for word in given:
        if word.startswith("-") and not word.lstrip("-").isdigit():
            groups.append((word.lstrip("-"), ""))
        elif groups:
            name, value = groups.pop()
            groups.append((name, f"{value} {word}".strip()))
        else:
            raise SpecError(f"build_flags begins with {word!r}", expected="a flag: --name", mend="put the flag first")
    return groups
