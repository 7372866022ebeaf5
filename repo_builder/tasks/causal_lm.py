"""Task ``text-generation`` with the engine onnx: one call of a causal language model, its cache in and out as tensors.

Nothing is kept between calls: who generates sends ``present.*`` back as ``past_key_values.*``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError, UnknownTaskError
from repo_builder.formats import huggingface_model
from repo_builder.formats.kv_cache import IDS, MASK, POSITIONS
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import DEFAULT_TOLERANCE, Case, Proof
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples
from repo_builder.tasks.causal_lm_head import LOGITS, past_names, present_names, program, takes_positions
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.tolerances import tolerances

PROMPTS, PROMPT_TOKENS, STEPS = 8, 12, 3
"""Of the proof: prompts, tokens of a prompt at most, and new tokens of each. Caches of real models are large."""


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """The model with its cache as inputs and outputs.

    Raises:
        UnknownTaskError: the folder holds no causal language model.
        SignatureError: see :func:`~repo_builder.tasks.causal_lm_head.program`.
    """
    return program(_pretrained(source))


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    """The one model, under the public name."""
    return (engine_model(model.public_name, model, engine),)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Prompts through transformers, token by token with the cache that it gave; tokens equal its own ``generate``.

    Raises:
        ConversionError: they do not.
    """
    import torch
    import transformers

    reference = _pretrained(source)
    cases = [case for ids in _prompts(model, source, reference) for case in _cases(reference, ids)]
    allowed = tolerances(model, {output.name: DEFAULT_TOLERANCE for output in engine.outputs})
    told = f"transformers {transformers.__version__} on torch {torch.__version__}, greedy tokens equal to generate()"
    return Proof(model.public_name, tuple(cases), engine.batch is not None, allowed, {}, told)


def _cases(reference: Any, prompt: Sequence[int]) -> Iterator[Case]:
    """The prompt (every second one in two calls), then one call for each new token."""
    wanted, given = _generated(reference, prompt), len(prompt)
    half = given // 2 if given % 2 == 0 else 0
    ids, cache, tokens = np.array([list(prompt)], dtype=np.int64), _empty(reference), []
    for start, end in ((0, half), (half, given)) if half else ((0, given),):
        case = _case(reference, ids[:, start:end], cache)
        cache = _next(case)
        yield case
    for _ in range(STEPS):
        tokens.append(int(case.outputs[LOGITS][0, -1].argmax()))
        case = _case(reference, np.array([[tokens[-1]]], dtype=np.int64), cache)
        cache = _next(case)
        yield case
    if tokens != wanted:
        raise ConversionError(
            f"token by token with its cache, {type(reference).__name__} says {tokens}; by generate() {wanted}",
            expected="the same tokens, greedily",
            mend="serve it with another engine: vllm, llmapi or tensorrt-llm",
        )


def _case(reference: Any, ids: np.ndarray[Any, Any], cache: Mapping[str, np.ndarray[Any, Any]]) -> Case:
    import torch
    from transformers.cache_utils import DynamicCache

    past = next(iter(cache.values())).shape[2]
    inputs = {IDS: ids, MASK: np.ones((1, past + ids.shape[1]), dtype=np.int64)}
    if takes_positions(reference):
        inputs[POSITIONS] = np.arange(past, past + ids.shape[1], dtype=np.int64)[None]
    tensors = [torch.from_numpy(array) for array in cache.values()]
    held = DynamicCache(list(zip(tensors[::2], tensors[1::2], strict=True)))
    with torch.no_grad():
        answer = reference(
            **{name: torch.from_numpy(array) for name, array in inputs.items()}, past_key_values=held, use_cache=True
        )
    present = [tensor.numpy() for layer in held.layers for tensor in (layer.keys, layer.values)]
    outputs = {LOGITS: answer.logits.numpy(), **dict(zip(present_names(len(held.layers)), present, strict=True))}
    return Case({**inputs, **cache}, outputs)


def _next(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """The cache of the next call."""
    present = [array for name, array in case.outputs.items() if name != LOGITS]
    return dict(zip(past_names(len(present) // 2), present, strict=True))


def _empty(reference: Any) -> dict[str, np.ndarray[Any, Any]]:
    specs = [spec for spec in program(reference).inputs if spec.name not in (IDS, MASK, POSITIONS)]
    return {spec.name: np.zeros((1, spec.shape[1], 0, spec.shape[3]), dtype=np.float32) for spec in specs}


def _generated(reference: Any, prompt: Sequence[int]) -> list[int]:
    """New tokens by transformers' own greedy search, without the folder's penalties and stops."""
    import torch
    import transformers

    reference.generation_config = transformers.GenerationConfig()
    ids = torch.tensor([list(prompt)])
    with huggingface_model.quiet(), torch.no_grad():
        found = reference.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=STEPS, pad_token_id=0
        )
    return [int(token) for token in found[0, len(prompt) :]]


def _prompts(model: ModelSpec, source: Artifact, reference: Any) -> list[list[int]]:
    """Token ids of the first samples that have any; made up where the folder has no tokenizer."""
    import transformers

    size = int(reference.config.vocab_size)
    if not (source.facts.get("tokenizer_json") or source.facts.get("tokenizer_config")):
        return [[(13 * row + 7 * place + 3) % size for place in range(row + 1)] for row in range(PROMPTS)]
    trust = bool(source.facts.get("trust_remote_code", False))
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        _home(source), local_files_only=True, trust_remote_code=trust
    )
    found: list[list[int]] = []
    for text in samples.texts(model):
        ids = [int(i) for i in tokenizer(text)["input_ids"]][: PROMPT_TOKENS - len(found) % 4]
        if ids and ids not in found:
            found.append(ids)
        if len(found) == PROMPTS and model.samples.texts is None:
            break
    return found


def _home(source: Artifact) -> Path:
    return source.path / str(source.facts.get("transformer", ""))


def _pretrained(source: Artifact) -> Any:
    import transformers

    trust = bool(source.facts.get("trust_remote_code", False))
    config = transformers.AutoConfig.from_pretrained(_home(source), local_files_only=True, trust_remote_code=trust)
    own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not own and type(config) not in transformers.AutoModelForCausalLM._model_mapping:
        raise UnknownTaskError(
            f"{source.path} holds a model of the type {config.model_type}, which is no causal language model",
            expected="a model that transformers' AutoModelForCausalLM takes (GPT-2, Llama, Qwen, ...)",
            mend="choose another task",
        )
    return huggingface_model.pretrained(transformers.AutoModelForCausalLM, source)
