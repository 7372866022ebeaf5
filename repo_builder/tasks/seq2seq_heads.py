"""The two graphs of an encoder-decoder model: the encoder with the keys and values of the decoder's cross-attention,
and one step of the decoder with a cache."""

from __future__ import annotations

from typing import Any

from repo_builder.errors import SignatureError, first_line
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

ENCODER, DECODER = "encoder", "decoder"
CROSS, PAST, PRESENT, LOGITS = "cross", "past", "present", "logits"
_MASK = TensorSpec("attention_mask", "INT64", ("batch", "sequence"))
_EXAMPLE_TOKENS = (2, 7)
_EXAMPLE_PAST = 4


def programs(model: Any) -> dict[str, TorchProgram]:
    """Encoder and decoder of a transformers model, to be exported one by one.

    The encoder takes ``input_ids`` and ``attention_mask`` INT64 [batch, sequence] and gives ``cross`` FP32
    [batch, layers * 2, heads, sequence, width]: keys and values of each layer in turn. The decoder takes
    ``decoder_input_ids`` INT64 [batch, 1] (the last token), ``attention_mask``, ``cross``, and ``past`` FP32 [batch,
    layers * 2, heads, 1 + tokens so far, width], whose first position is a dummy: Triton's tensors are never empty.
    It gives ``logits`` FP32 [batch, vocabulary] of the next token and ``present``, the next ``past``.

    Raises:
        SignatureError: the model keeps no keys and values of its own for each layer of one decoder.
    """
    import torch

    encoder, decoder = _modules(model)
    ids = torch.arange(_EXAMPLE_TOKENS[0] * _EXAMPLE_TOKENS[1]).reshape(_EXAMPLE_TOKENS) % model.config.vocab_size
    mask = torch.ones_like(ids)
    try:
        with torch.no_grad():
            cross = encoder(ids, mask)
            past = torch.randn(
                *cross.shape[:3], _EXAMPLE_PAST, cross.shape[4], generator=torch.Generator().manual_seed(0)
            )
            decoder(ids[:, :1], mask, cross, past)
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise SignatureError(
            f"{type(model).__name__} does not run as one encoder and one decoder with a cache: {first_line(error)}",
            expected="a model of the kind of T5, BART or Marian, with equal keys and values in all layers",
            mend="serve its parts with a module.py:factory and the task 'tensors'",
        ) from error
    layers, heads, width = cross.shape[1], cross.shape[2], cross.shape[4]
    inputs = (TensorSpec("input_ids", "INT64", ("batch", "sequence")), _MASK)
    step = (
        TensorSpec("decoder_input_ids", "INT64", ("batch", 1)),
        _MASK,
        TensorSpec(CROSS, "FP32", ("batch", layers, heads, "sequence", width)),
        TensorSpec(PAST, "FP32", ("batch", layers, heads, PAST, width)),
    )
    return {
        ENCODER: TorchProgram(encoder, "eager", inputs, (CROSS,), (ids, mask)),
        DECODER: TorchProgram(decoder, "eager", step, (LOGITS, PRESENT), (ids[:, :1], mask, cross, past)),
    }


def _modules(model: Any) -> tuple[Any, Any]:
    import torch
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        """One step of the decoder fills the cache of the cross-attention; an exporter leaves out the rest of it."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            encoded = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            self.model.get_decoder()(
                input_ids=input_ids[:, :1],
                encoder_hidden_states=encoded.last_hidden_state,
                encoder_attention_mask=attention_mask,
                past_key_values=cache,
                use_cache=True,
            )
            return _stacked(cache.cross_attention_cache)

    class Decoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, decoder_input_ids: Any, attention_mask: Any, cross: Any, past: Any) -> Any:
            layers = range(cross.shape[1] // 2)
            own = DynamicCache([(past[:, 2 * i, :, 1:], past[:, 2 * i + 1, :, 1:]) for i in layers])
            cache = EncoderDecoderCache(own, DynamicCache([(cross[:, 2 * i], cross[:, 2 * i + 1]) for i in layers]))
            cache.is_updated = dict.fromkeys(layers, True)
            unused = cross.new_zeros(cross.shape[0], cross.shape[3], self.model.config.hidden_size)
            answer = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=unused),
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                past_key_values=cache,
                use_cache=True,
            )
            return answer.logits[:, -1], torch.cat([past, _stacked(own, -1)], 3)

    def _stacked(cache: Any, start: int = 0) -> Any:
        return torch.stack([t[:, :, start:] for layer in cache.layers for t in (layer.keys, layer.values)], 1)

    return Encoder().eval(), Decoder().eval()
