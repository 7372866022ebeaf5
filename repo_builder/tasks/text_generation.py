"""Task ``text-generation``: a prompt or messages in, generated text out as it comes, by TensorRT-LLM or vLLM.

With the engine onnx: one step of the model with its KV cache as tensors (:mod:`~repo_builder.tasks.causal_lm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.llm import source as language_source
from repo_builder.llm.source import LanguageModel
from repo_builder.planned import PlannedModel
from repo_builder.proof import Proof
from repo_builder.spec import LLM_ENGINES, ModelSpec
from repo_builder.tasks import causal_lm, llm_layouts, llm_proof, llm_tokens
from repo_builder.tasks.generation_cases import MARGINS, Limits
from repo_builder.tasks.llm_tokens import LlmTokens

NAME = "text-generation"
SOURCES = frozenset({"huggingface", tensorrt_llm_engine.NAME})
UNLIMITED = 1 << 20
"""Tokens taken of a model that tells no limit."""
_NO_EFFECT = ("inputs", "outputs", "shapes", "exporter", "instances", "image", "labels")


def check(model: ModelSpec, source: Artifact) -> None:
    """Refuse what this task cannot do with the engine.

    Raises:
        SpecError: an option without effect, or an engine folder without a tokenizer.
    """
    if model.engine not in LLM_ENGINES:
        return
    unset = {name: field.default for name, field in ModelSpec.model_fields.items()}
    for option in _NO_EFFECT:
        if getattr(model, option) != unset[option]:
            raise SpecError(
                f"{option} has no effect on the engine {model.engine}",
                expected="task, target, batching.max_batch_size, llm, config, step_configs, samples",
                mend=f"leave {option} out",
            )
    if source.format == tensorrt_llm_engine.NAME:
        if model.engine != "tensorrt-llm":
            raise SpecError(
                f"{source.path.name} is a TensorRT-LLM engine, and the engine {model.engine} was asked for",
                expected="engine: tensorrt-llm",
                mend=f"set it, or give the Hugging Face folder for {model.engine}",
            )
        if not model.llm.tokenizer:
            raise SpecError(
                f"{source.path.name} is a TensorRT-LLM engine, which has no tokenizer",
                expected="llm.tokenizer: the Hugging Face folder that the engine was built from",
                mend="name it (--tokenizer FOLDER)",
            )


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Of the engine onnx: see :func:`~repo_builder.tasks.causal_lm.head`."""
    return causal_lm.head(source, model)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    """The models of the engine's layout; the first is the public one."""
    if model.engine not in LLM_ENGINES:
        return causal_lm.models(model, source, engine)
    language = _language(model, source)
    return llm_layouts.models(model, source, language, _tokens(model, language), engine, _release(engine))


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof | None:
    """transformers' own greedy answers; None for an engine folder whose weights nobody gave."""
    if model.engine not in LLM_ENGINES:
        return causal_lm.proof(model, source, engine, program)
    found = weights(model, source)
    if found is None:
        return None
    language = _language(model, source)
    tokens = _tokens(model, language)
    limits = _limits(model, language, engine)
    if model.engine != "tensorrt-llm":
        limits = replace(limits, bos=tokens.chat.get("bos_text", ""))
    return llm_proof.proof(model, found, language, tokens, limits)


def _language(model: ModelSpec, source: Artifact) -> LanguageModel:
    """What the Hugging Face folder says: the source's own, or the one beside an engine folder."""
    return language_source.read(_folder(model, source))


def weights(model: ModelSpec, source: Artifact) -> Artifact | None:
    """The Hugging Face folder with its weights; None where ``llm.tokenizer`` has only a tokenizer."""
    if source.format != tensorrt_llm_engine.NAME:
        return source
    folder = _folder(model, source)
    if not any(folder.glob("*.safetensors")):
        return None
    from repo_builder.formats import huggingface

    return huggingface.describe(folder, trust_remote_code=model.trust_remote_code)


def facts(model: ModelSpec, source: Artifact, engine: Artifact) -> Mapping[str, Any]:
    """What the embedded server and its reports need to know of the stand-ins of TensorRT-LLM."""
    if model.engine == "llmapi":
        return {"stand_in_package": "tensorrt_llm"}
    if model.engine != "tensorrt-llm":
        return {}
    found = weights(model, source)
    return {"checkpoint": str(_folder(model, source).resolve()) if found else "", "built": bool(engine.files)}


def _tokens(model: ModelSpec, language: LanguageModel) -> LlmTokens:
    return llm_tokens.tokens(language.folder, language, trust_remote_code=model.trust_remote_code)


def _limits(model: ModelSpec, language: LanguageModel, engine: Artifact) -> Limits:
    positions = language.max_positions or UNLIMITED
    if model.engine == "tensorrt-llm":
        settings = EngineSettings(**engine.facts["engine"])
        whole = min(settings.max_seq_len, positions)
        return Limits(settings.dtype, min(model.llm.max_input_len or whole, settings.longest_prompt), whole)
    halved = "bfloat16" if language.dtype in ("float32", "") else language.dtype  # what both make of auto
    asked = model.llm.dtype if model.llm.dtype != "auto" else halved
    whole = min(model.llm.max_seq_len or positions, positions)
    return Limits(asked if asked in MARGINS else "float32", min(model.llm.max_input_len or whole, whole), whole)


def _release(engine: Artifact) -> releases.Release:
    return releases.release(str(engine.facts["target"]))


def _folder(model: ModelSpec, source: Artifact) -> Path:
    if source.format == tensorrt_llm_engine.NAME:
        return Path(str(model.llm.tokenizer))
    return source.path / str(source.facts.get("transformer", ""))
