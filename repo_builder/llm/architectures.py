"""Which conversion script of TensorRT-LLM takes which architecture, and what that script can do.

Sources: TensorRT-LLM examples/models/{core,contrib}/*/convert_checkpoint.py, tensorrt_llm/models/__init__.py
(MODEL_MAP), models/chatglm/config.py, quantization/quantize_by_modelopt.py (MODEL_NAME_PATTERN_MAP), 0.19 to 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repo_builder.errors import SpecError, UnknownTaskError, nearest
from repo_builder.formats import source_file
from repo_builder.llm.source import LanguageModel


@dataclass(frozen=True)
class Script:
    """One ``convert_checkpoint.py``.

    Attributes:
        folder: below ``examples/models``.
        pipelines: whether it splits a model into pipeline stages.
        quantizes: whether ``examples/quantization/quantize.py`` knows the architecture.
        flags: further flags that it always needs.
    """

    folder: str
    pipelines: bool = True
    quantizes: bool = True
    tensor_flag: str = "--tp_size"
    flags: tuple[str, ...] = ()


_LLAMA, _QWEN = Script("core/llama"), Script("core/qwen")
_GEMMA = Script("core/gemma", pipelines=False, tensor_flag="--world-size", flags=("--ckpt-type", "hf"))
_GLM = Script("core/glm-4-9b", pipelines=False)
_PHI_3 = Script("core/phi", pipelines=False)
_MPT = Script("contrib/mpt")
_BAICHUAN, _FALCON = Script("contrib/baichuan"), Script("contrib/falcon")


def _gpt(variant: str) -> Script:
    return Script("core/gpt", flags=("--gpt_variant", variant))


SCRIPTS: dict[str, Script] = {
    **dict.fromkeys(("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "ExaoneForCausalLM"), _LLAMA),
    **dict.fromkeys(("GraniteForCausalLM", "GraniteMoeForCausalLM"), _LLAMA),
    **dict.fromkeys(("QWenLMHeadModel", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM"), _QWEN),
    "GPT2LMHeadModel": _gpt("gpt2"),
    "GPTBigCodeForCausalLM": _gpt("starcoder"),
    "Starcoder2ForCausalLM": _gpt("starcoder2"),
    "NemotronForCausalLM": _gpt("nemotron"),
    **dict.fromkeys(("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"), _GEMMA),
    **dict.fromkeys(("ChatGLMModel", "ChatGLMForConditionalGeneration", "ChatGLMForCausalLM", "GLMModel"), _GLM),
    **dict.fromkeys(("Phi3ForCausalLM", "Phi3SmallForCausalLM", "PhiMoEForCausalLM"), _PHI_3),
    "PhiForCausalLM": Script("core/phi", pipelines=False, quantizes=False),
    "CohereForCausalLM": Script("core/commandr", quantizes=False),
    "InternLM2ForCausalLM": Script("core/internlm2", quantizes=False),
    **dict.fromkeys(("BaichuanForCausalLM", "BaiChuanForCausalLM"), _BAICHUAN),
    **dict.fromkeys(("FalconForCausalLM", "RWForCausalLM"), _FALCON),
    "BloomForCausalLM": Script("contrib/bloom"),
    "GPTJForCausalLM": Script("contrib/gptj"),
    "GPTNeoXForCausalLM": Script("contrib/gptneox", quantizes=False),
    **dict.fromkeys(("MptForCausalLM", "MPTForCausalLM"), _MPT),
    "OPTForCausalLM": Script("contrib/opt", pipelines=False, quantizes=False),
}
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads")


def script(language: LanguageModel) -> Script:
    """The script of the model's architecture.

    Raises:
        UnknownTaskError: there is none; the message lists those that there are.
    """
    name = language.architectures[0] if language.architectures else ""
    if name not in SCRIPTS:
        raise UnknownTaskError(
            f"TensorRT-LLM has no engine for the architecture {name or '(none in config.json)'}"
            f"{nearest(name, list(SCRIPTS))}",
            expected="one of " + ", ".join(sorted(SCRIPTS)),
            mend="serve it with --engine llmapi or --engine vllm",
        )
    return SCRIPTS[name]


def further_flags(language: LanguageModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags that depend on the model, and notes on how they were found.

    Raises:
        SpecError: nothing in the folder tells the model's version.
    """
    found = script(language)
    config = source_file.read_json(language.folder / "config.json")
    if found is _GLM:
        version, how = _glm_version(language, config)
        return ("--chatglm_version", version), (f"ChatGLM version {version}: {how}",)
    if found is _BAICHUAN:
        version = f"v{2 if language.vocab_size > 100_000 else 1}_{13 if config.get('hidden_size', 0) > 4096 else 7}b"
        return ("--model_version", version), (f"Baichuan {version}: by vocabulary and hidden size of config.json",)
    return found.flags, ()


def check_parallel(language: LanguageModel, tensor: int, pipeline: int) -> None:
    """Whether the model can be split so.

    Raises:
        SpecError: it cannot.
    """
    if pipeline > 1 and not script(language).pipelines:
        raise SpecError(
            f"pp is {pipeline}, and TensorRT-LLM splits {language.architectures[0]} into no pipeline stages",
            expected="pp: 1",
            mend=f"take tp: {tensor * pipeline} instead, if the model's heads divide by it",
        )
    config = source_file.read_json(language.folder / "config.json")
    heads = next((config[key] for key in _HEADS if isinstance(config.get(key), int)), None)
    if heads is not None and heads % tensor:
        divisors = [str(n) for n in range(1, heads + 1) if heads % n == 0]
        raise SpecError(
            f"tp is {tensor}, and the model has {heads} attention heads",
            expected="tp that divides them: " + ", ".join(divisors[:12]),
            mend="choose another tp",
        )
    groups = next((config[key] for key in _KEY_VALUE_HEADS if isinstance(config.get(key), int)), None)
    if groups and groups % tensor and tensor % groups:
        raise SpecError(
            f"tp is {tensor}, and the model has {groups} key and value heads",
            expected="one that divides the other",
            mend="choose another tp",
        )
    layers = config.get("num_hidden_layers", config.get("num_layers", config.get("n_layer")))
    if isinstance(layers, int) and pipeline > layers:
        raise SpecError(
            f"pp is {pipeline}, and the model has {layers} layers", expected=f"at most {layers}", mend="lower pp"
        )


def _glm_version(language: LanguageModel, config: Mapping[str, Any]) -> tuple[str, str]:
    """The version that ``--chatglm_version`` takes. Version 2 and 3 differ only in how ``rope_ratio`` is used."""
    if language.model_type == "glm":
        return "glm", "model_type of config.json"
    if "inner_hidden_size" in config or "position_encoding_2d" in config:
        return "chatglm", "the layout of config.json"
    if language.vocab_size >= 150_000:
        return "glm4", f"its vocabulary of {language.vocab_size}"
    names = f"{config.get('_name_or_path', '')} {language.folder.name}".lower().replace("-", "").replace("_", "")
    for version in ("glm4", "chatglm3", "chatglm2"):
        if version in names:
            return version, "the name in config.json or of the folder"
    if config.get("rope_ratio", 1) == 1:
        return "chatglm2", "no rope_ratio in config.json, so versions 2 and 3 convert alike"
    raise SpecError(
        f"nothing in {language.folder.name} tells whether it is ChatGLM2 or ChatGLM3, "
        f"which take rope_ratio ({config['rope_ratio']}) differently",
        expected='"_name_or_path" in config.json with chatglm2 or chatglm3 in it',
        mend="add it, or name the folder so",
    )
