"""The tiny models that other tests build upon load, answer differently for different texts, and mind their padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny_tokenizers, tiny_transformers

pytestmark = pytest.mark.torch

TEXTS = ("a", "The kettle sings before the house wakes up.", tiny_tokenizers.TEXTS[9], tiny_tokenizers.TEXTS[10])
QUESTION = "Who sings?"
READ_PADDING = {
    "convbert": "convolutions over neighbours, padding too",
    "mobilebert": "the embeddings of neighbours, padding's too",
    "fnet": "a Fourier transform over all positions",
}
"""Architectures whose answers change with the padding of a batch, in transformers too."""
PAIRS = [
    (architecture, head)
    for architecture in tiny_transformers.ARCHITECTURES
    for head in tiny_transformers.heads(architecture)
    if head != "nli"
]


@pytest.mark.parametrize(("architecture", "head"), PAIRS)
def test_answers_vary_and_padding_does_not_count(architecture: str, head: str, tmp_path: Path) -> None:
    import torch
    import transformers

    folder = tiny_transformers.save(architecture, head, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    auto = getattr(transformers, tiny_transformers.HEADS[head])
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    texts: Any = [(QUESTION, text) for text in TEXTS] if head == "question-answering" else list(TEXTS)
    options = {"return_tensors": "pt", "truncation": True, "max_length": tiny_tokenizers.MAX_LENGTH}
    whole = tokenizer(texts, padding=True, **options)
    if head == "seq2seq-lm":
        model, whole = model.get_encoder(), {n: whole[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        together = _logits(head, model.eval()(**whole))
        alone = []
        for text in texts:
            one = tokenizer([text], **options)
            alone.append(_logits(head, model(**{n: one[n] for n in whole}))[0])
    real = [mask.bool() for mask in whole["attention_mask"]]
    rows = [t if t.shape[0] < len(m) else t[m] for t, m in zip(together, real, strict=True)]
    apart = max((row - own).abs().max().item() for row, own in zip(rows, alone, strict=True))
    if architecture in READ_PADDING:
        assert apart > 1e-3
    else:
        assert apart < 1e-5
    last = torch.stack([own.reshape(-1)[-2:] for own in alone])
    assert torch.all(last.std(0) > 0.02)
    assert torch.all(last.abs() < 30)


def _logits(head: str, output: Any) -> Any:
    import torch

    if head == "question-answering":
        names = (
            ("start_logits", "end_logits") if "start_logits" in output else ("start_top_log_probs", "end_top_log_probs")
        )
        return torch.stack([output[name].flatten(1) for name in names], dim=-1)
    return output[0]


def test_labels_are_telling(tmp_path: Path) -> None:
    import transformers

    def labels(folder: Path) -> dict[int, str]:
        return dict(transformers.AutoConfig.from_pretrained(folder).id2label)

    save = tiny_transformers.save
    assert labels(save("bert", "nli", tmp_path / "nli")) == {0: "contradiction", 1: "neutral", 2: "entailment"}
    assert labels(save("bert", "token-classification", tmp_path / "ner"))[1] == "B-PER"
    one = save("bert", "sequence-classification", tmp_path / "one", num_labels=1)
    assert transformers.AutoConfig.from_pretrained(one).num_labels == 1
    several = save("bert", "sequence-classification", tmp_path / "multi", problem_type="multi_label_classification")
    assert transformers.AutoConfig.from_pretrained(several).problem_type == "multi_label_classification"
    assert labels(several) == {0: "negative", 1: "neutral", 2: "positive"}


def test_two_calls_write_the_same_weights(tmp_path: Path) -> None:
    first, second = (tiny_transformers.save("roberta", "base", tmp_path / name) for name in "ab")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", list(tiny_tokenizers.FAMILIES))
def test_tokenizers_come_back_as_they_were(family: str, tmp_path: Path) -> None:
    import transformers

    tiny_tokenizers.make(family).save_pretrained(tmp_path / "made")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "made")
    loaded.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert loaded.is_fast
    assert len(loaded) < 1024
    assert loaded.model_max_length == tiny_tokenizers.MAX_LENGTH
    texts = list(tiny_tokenizers.TEXTS)
    ids = loaded(texts, truncation=True)["input_ids"]
    assert ids == again(texts, truncation=True)["input_ids"]
    assert max(map(len, ids)) == tiny_tokenizers.MAX_LENGTH
    assert sum(len(loaded(text, verbose=False)["input_ids"]) > tiny_tokenizers.MAX_LENGTH for text in texts) >= 5
    encoded = loaded("Hello river", return_offsets_mapping=True)
    assert {i for i in encoded.word_ids() if i is not None} == {0, 1}
    assert max(end for _, end in encoded["offset_mapping"]) == len("Hello river")
