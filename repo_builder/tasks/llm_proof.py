"""The proof of ``text-generation``: requests in each layout's own tensors, and transformers' greedy answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.llm.source import LanguageModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import generation_cases
from repo_builder.tasks.generation_cases import Answered, Limits
from repo_builder.tasks.llm_tokens import LlmTokens

OUTPUT = "text_output"
_PARTS = {"tensorrt-llm": "deltas", "vllm": "deltas", "llmapi": "cumulative"}
"""How each layout's responses make an answer."""


def proof(model: ModelSpec, source: Artifact, language: LanguageModel, tokens: LlmTokens, limits: Limits) -> Proof:
    """Each prompt alone, as transformers' greedy search continues it.

    Args:
        source: the Hugging Face folder.
        limits: of the engine.
    """
    found = generation_cases.answers(model, source, language, tokens, limits)
    made = {"tensorrt-llm": _engine_path, "vllm": _vllm, "llmapi": _llmapi}[model.engine]
    cases = tuple(made(one, model, tokens) for one in found.cases)
    streamed = _PARTS[model.engine] if model.llm.decoupled else ""
    return Proof(model.public_name, cases, False, {OUTPUT: Tolerance()}, reference=found.reference, streamed=streamed)


def _engine_path(one: Answered, model: ModelSpec, tokens: LlmTokens) -> Case:
    inputs: dict[str, Any] = {
        "text_input": _text(one.prompt, rows=True),
        "max_tokens": np.array([[len(one.tokens)]], dtype=np.int32),
        "stream": np.array([[model.llm.decoupled]]),
        "exclude_input_in_output": np.array([[True]]),
    }
    if one.messages:
        inputs["messages"] = _text(json.dumps(list(one.messages), ensure_ascii=False), rows=True)
    return Case(inputs, {OUTPUT: _text(one.text)})


def _vllm(one: Answered, model: ModelSpec, tokens: LlmTokens) -> Case:
    sampling = {"max_tokens": len(one.tokens), "temperature": 0.0}
    inputs = {
        "text_input": _text(_prompt(one, tokens)),
        "stream": np.array([True]),
        "exclude_input_in_output": np.array([True]),
        "sampling_parameters": _text(json.dumps(sampling)),
    }
    return Case(inputs, {OUTPUT: _text(one.continued)})


def _llmapi(one: Answered, model: ModelSpec, tokens: LlmTokens) -> Case:
    inputs = {
        "text_input": _text(_prompt(one, tokens)),
        "streaming": np.array([model.llm.decoupled]),
        "sampling_param_max_tokens": np.array([len(one.tokens)], dtype=np.int32),
        "sampling_param_exclude_input_from_output": np.array([True]),
    }
    return Case(inputs, {OUTPUT: _text(one.text)})


def _prompt(one: Answered, tokens: LlmTokens) -> str:
    """What a client sends as plain text: of messages the rendered template, without the BOS that the server adds."""
    if not one.messages:
        return one.prompt
    return tokens.prompt(one.messages).removeprefix(tokens.chat.get("bos_text", ""))


def _text(text: str, *, rows: bool = False) -> np.ndarray[Any, Any]:
    found = np.array([text.encode("utf-8")], dtype=object)
    return found[None] if rows else found
