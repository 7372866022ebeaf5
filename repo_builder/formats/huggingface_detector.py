"""Detectors of transformers as exporters and comparisons can take them: a free batch, queries in a fixed order."""

from __future__ import annotations

import builtins
import sys
from typing import Any


def steady(model: Any) -> None:
    """Change a loaded detector so that its answers depend less on who computes them; it finds the same objects."""
    _free_batch(model)
    _ordered_queries(model)


def _free_batch(model: Any) -> None:
    """Let the batch stay free where a model's code asks for ``len`` of a tensor, as RT-DETR's does: Python's own makes
    a plain number of it, and an exporter then fixes it."""
    import torch

    def size(of: Any) -> Any:
        return of.shape[0] if isinstance(of, torch.Tensor) else builtins.len(of)

    vars(sys.modules[type(model).__module__])["len"] = size


def _ordered_queries(model: Any) -> None:
    """Hand the queries to the decoder in the order of their places in the image.

    RT-DETR, its second version and D-FINE choose the places with the best scores, and hand them over best first. Where
    rounding alone parts two scores, another runtime hands them over the other way round, and all that follows changes
    places. The decoder treats its queries alike, so that their order changes none of them; where it does not
    (``learn_initial_query``) it is left as it is.
    """
    import torch

    inner: Any = getattr(model, "model", None)
    if not hasattr(inner, "enc_score_head") or model.config.learn_initial_query:
        return
    seen: list[Any] = []

    def reorder(_decoder: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        chosen = torch.topk(seen.pop().max(-1).values, model.config.num_queries, dim=1).indices
        order = torch.sort(chosen, dim=1).indices.unsqueeze(-1)
        moved = {
            name: kwargs[name].gather(1, order.expand(-1, -1, kwargs[name].shape[-1]))
            for name in ("inputs_embeds", "reference_points")
        }
        return args, {**kwargs, **moved}

    inner.enc_score_head.register_forward_hook(lambda _head, _args, scores: seen.append(scores))
    inner.decoder.register_forward_pre_hook(reorder, with_kwargs=True)
