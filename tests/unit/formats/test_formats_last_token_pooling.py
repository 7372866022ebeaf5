"""Decoders that classify: padded on either side, with and without a padding token, as each text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder.formats import huggingface
from tests import tiny_tokenizers, tiny_transformers

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("config", [{}, {"pad_token_id": None}], ids=["pad", "no pad"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_batches_are_what_each_text_is_alone(
    architecture: str, config: dict[str, Any], side: str, tmp_path: Path
) -> None:
    import torch
    import transformers

    folder = tiny_transformers.save(architecture, "sequence-classification", tmp_path, **config)
    source = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert source.config.pad_token_id == config.get("pad_token_id", tokenizer.pad_token_id)
    rows = [tokenizer(text, truncation=True)["input_ids"] for text in tiny_tokenizers.TEXTS[1:30:4]]
    with torch.no_grad():
        alone = np.concatenate([source(input_ids=torch.tensor([row])).logits.numpy() for row in rows])
    width = max(map(len, rows)) + 1
    ids, mask = (np.zeros((len(rows), width), np.int64) for _ in range(2))
    ids[:] = tokenizer.pad_token_id
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = row, 1
    program = huggingface.load(huggingface.describe(folder), "AutoModelForSequenceClassification")
    (logits,) = program.run({"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(logits, alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-2
