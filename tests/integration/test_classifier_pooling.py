"""Classifiers that pool at one token of a text give a row of a batch the logits that transformers gives it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_tokenizers, tiny_transformers

pytestmark = pytest.mark.torch

TEXTS = ["a", "The kettle sings before the house wakes up.", tiny_tokenizers.TEXTS[9], "one </s> two"]


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("bart", "right"),
        ("t5", "right"),
        *((a, side) for a in ("gpt2", "llama", "qwen2") for side in ("left", "right")),
    ],
)
def test_rows_of_a_padded_batch_are_pooled_as_alone(architecture: str, side: str, tmp_path: Path) -> None:
    import torch
    import transformers

    from repo_builder.formats import huggingface

    folder = tiny_transformers.save(architecture, "sequence-classification", tmp_path, tokenizer={"padding_side": side})
    program = huggingface.load(huggingface.describe(folder), "AutoModelForSequenceClassification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    own = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        answer = program.module(*(batch[spec.name] for spec in program.inputs))
        alone = torch.cat([own(**tokenizer([t], truncation=True, return_tensors="pt")).logits for t in TEXTS])
    assert torch.equal(answer[0], answer["logits"])
    assert (answer.logits - alone).abs().max() < 1e-5
    assert alone.std(0).min() > 0.1
