"""The graph of a causal language model with its cache of keys and values as inputs and outputs."""

from __future__ import annotations

import inspect
from typing import Any

from repo_builder.errors import SignatureError, first_line
from repo_builder.formats.kv_cache import IDS, MASK, POSITIONS
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

LOGITS = "logits"
BATCH, SEQUENCE, PAST, TOTAL = "batch", "sequence", "past", "past_plus_sequence"
_EXAMPLE_TOKENS = (2, 7)
_EXAMPLE_PAST = 4


def program(model: Any) -> TorchProgram:
    """One call of a transformers model, under the names of Hugging Face optimum's exports.

    Inputs: ``input_ids`` INT64 [batch, sequence]; ``attention_mask`` INT64 [batch, past_plus_sequence], 0 for padding;
    ``position_ids`` INT64 [batch, sequence] where the architecture takes them; for each layer N
    ``past_key_values.N.key`` and ``.value`` FP32 [batch, heads, past, width], where ``past`` may be 0. Outputs:
    ``logits`` FP32 [batch, sequence, vocabulary] and ``present.N.key``, ``present.N.value``, the next past.

    Raises:
        SignatureError: the model keeps no keys and values of all tokens in every layer.
    """
    import torch

    positions = takes_positions(model)
    batch, tokens = _EXAMPLE_TOKENS
    ids = torch.arange(batch * tokens).reshape(_EXAMPLE_TOKENS) % model.config.vocab_size
    try:
        first = _filled(model, ids[:, :1])
        layers = [(layer.keys, layer.values) for layer in first.layers]
        generator = torch.Generator().manual_seed(0)
        past = [
            torch.randn(batch, t.shape[1], _EXAMPLE_PAST, t.shape[3], generator=generator)
            for layer in layers
            for t in layer
        ]
        where = torch.arange(_EXAMPLE_PAST, _EXAMPLE_PAST + tokens)[None].repeat(batch, 1)
        mask = torch.ones(batch, _EXAMPLE_PAST + tokens, dtype=torch.int64)
        examples = (ids, mask, *((where,) if positions else ()), *past)
        module = _module(model, positions)
        with torch.no_grad():
            answer = module(*examples)
        grown = bool(past) and all(t.shape[2] == mask.shape[1] for t in answer[1:]) and len(answer) == len(past) + 1
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise _no_cache(model, first_line(error)) from error
    if not grown:
        raise _no_cache(model, "its cache does not grow by the tokens that it is given")
    inputs = [TensorSpec(IDS, "INT64", (BATCH, SEQUENCE)), TensorSpec(MASK, "INT64", (BATCH, TOTAL))]
    if positions:
        inputs.append(TensorSpec(POSITIONS, "INT64", (BATCH, SEQUENCE)))
    for name, tensor in zip(past_names(len(layers)), past, strict=True):
        inputs.append(TensorSpec(name, "FP32", (BATCH, tensor.shape[1], PAST, tensor.shape[3])))
    return TorchProgram(module, "eager", tuple(inputs), (LOGITS, *present_names(len(layers))), examples)


def takes_positions(model: Any) -> bool:
    return POSITIONS in inspect.signature(model.forward).parameters


def past_names(layers: int) -> list[str]:
    return [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def present_names(layers: int) -> list[str]:
    return [f"present.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _filled(model: Any, ids: Any) -> Any:
    """The model's cache after some tokens."""
    import torch
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    if not cache.layers:
        raise ValueError("it fills no cache")
    return cache


def _module(model: Any, positions: bool) -> Any:
    import torch
    from transformers.cache_utils import DynamicCache

    class CausalLM(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            ids, mask, *rest = inputs
            where = {POSITIONS: rest.pop(0)} if positions else {}
            cache = DynamicCache(list(zip(rest[::2], rest[1::2], strict=True)))
            answer = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where)
            return answer.logits, *(t for layer in cache.layers for t in (layer.keys, layer.values))

    return CausalLM().eval()


def _no_cache(model: Any, why: str) -> SignatureError:
    return SignatureError(
        f"{type(model).__name__} does not run with its cache as inputs and outputs: {why}",
        expected="a model of the kind of GPT-2, Llama or Qwen: keys and values of all tokens in every layer",
        mend="take another engine for it: vllm, llmapi or tensorrt-llm",
    )
