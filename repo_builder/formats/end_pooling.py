"""Encoder-decoder classifiers (BART, T5, ...) that pool at the last end token, in a form that exporters take.

transformers picks the end tokens with a boolean index, whose size depends on the data, and refuses batches whose rows
have unequal numbers of them (``</s>`` written out in a text). Each row alone is pooled at its last one: here the same
is a gather, row by row.
"""

from __future__ import annotations

from typing import Any


def needed(model: Any) -> bool:
    """Whether ``model`` is such a classifier: BartForSequenceClassification, T5ForSequenceClassification and theirs."""
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    return is_classifier and bool(model.config.is_encoder_decoder) and hasattr(model, "classification_head")


def pool_row_by_row(model: Any) -> None:
    """Replace the ``forward`` of ``model``: inputs by name in, transformers' output with ``logits`` [batch, labels]
    out."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    base = getattr(model, model.base_model_prefix)
    shift = getattr(model, "_shift_right", None)

    def forward(input_ids: Any, **others: Any) -> Any:
        decoder = {"decoder_input_ids": shift(input_ids)} if shift else {}
        hidden = base(input_ids, **decoder, **others)[0]
        ends = (input_ids == model.config.eos_token_id).to(torch.int64)
        last = (ends * torch.arange(hidden.shape[1], device=hidden.device)).amax(dim=1)
        pooled = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        return SequenceClassifierOutput(logits=model.classification_head(pooled))

    model.forward = forward
