"""Decoders that classify by a text's last token (GPT-2, Llama, Qwen, ...), so that padding on either side is the same.

transformers refuses batches where config.json has no padding token, and counts absolute positions from the padding of
rows that are padded on the left. A row alone is read at its last token, at positions from 0: here the attention mask
says where that is.
"""

from __future__ import annotations

import inspect
from typing import Any


def needed(model: Any) -> bool:
    """Whether ``model`` is such a classifier: GenericForSequenceClassification and theirs call its last layer score."""
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    return is_classifier and not model.config.is_encoder_decoder and hasattr(model, "score")


def pool_by_mask(model: Any) -> None:
    """Replace the ``forward`` of ``model``: inputs by name in, transformers' output with ``logits`` [batch, labels]
    out.

    Tokens of the configured padding id do not count even where they are part of the text, as in transformers.
    """
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    base = getattr(model, model.base_model_prefix)
    positions = "position_ids" in inspect.signature(base.forward).parameters
    padding = model.config.get_text_config().pad_token_id

    def forward(input_ids: Any, attention_mask: Any = None, **others: Any) -> Any:
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if positions:
            others["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
        hidden = base(input_ids, attention_mask=attention_mask, **others)[0]
        counted = real if padding is None else real * (input_ids != padding).to(real.dtype)
        last = (counted * torch.arange(hidden.shape[1], device=hidden.device)).amax(dim=1)
        pooled = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        return SequenceClassifierOutput(logits=model.score(pooled))

    model.forward = forward
