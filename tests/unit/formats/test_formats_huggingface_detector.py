"""RT-DETR's queries: the same objects in an order that does not hang on the order of their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder.formats import huggingface_detector
from tests import tiny_vision

pytestmark = pytest.mark.torch


def detector(folder: Path) -> Any:
    """With a query for every one of its 8 x 8 + 4 x 4 + 2 x 2 places."""
    import transformers

    folder = tiny_vision.save_detector("rt_detr", folder)
    return transformers.AutoModelForObjectDetection.from_pretrained(folder, num_queries=84).eval()


def test_the_order_of_scores_changes_no_querys_place(tmp_path: Path) -> None:
    import torch

    pixels = torch.rand(2, 3, 64, 64)
    plain, turned = detector(tmp_path / "a"), detector(tmp_path / "b")
    with torch.no_grad():
        found = plain(pixel_values=pixels)
        huggingface_detector.steady(plain)
        huggingface_detector.steady(turned)
        turned.model.enc_score_head.weight.neg_()
        turned.model.enc_score_head.bias.neg_()
        first, second = plain(pixel_values=pixels), turned(pixel_values=pixels)
    torch.testing.assert_close(first.logits, second.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.pred_boxes, second.pred_boxes, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found.logits, first.logits, atol=1e-2), "they were in another order"
    best = [one.logits.max(-1).values.sort(-1).values for one in (found, first)]
    torch.testing.assert_close(*best, atol=1e-4, rtol=1e-4)


def test_the_length_of_a_tensor_stays_free() -> None:
    import torch
    from transformers.models.rt_detr import modeling_rt_detr

    class Rows(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.zeros(modeling_rt_detr.len(x)) + x

    huggingface_detector._free_batch(
        modeling_rt_detr.RTDetrForObjectDetection.__new__(modeling_rt_detr.RTDetrForObjectDetection)
    )
    exported = torch.export.export(Rows(), (torch.ones(3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert exported.module()(torch.ones(5)).shape == (5,)
    assert modeling_rt_detr.len([1, 2]) == 2
