"""Tiny tokenizers of the classes that checkpoints have: special tokens, pairs and masks as theirs.

Vocabularies come from the sample texts, the same ones every time: the trainers of WordPiece and Unigram break ties by
the order of a hash table.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

MAX_LENGTH = 48
"""Tokens that a tiny model takes: shorter than the longest sample texts, so that these are cut."""

TEXTS: tuple[str, ...] = tuple(
    json.loads(resources.files("repo_builder.tasks").joinpath("sample_texts.json").read_text(encoding="utf-8"))
)
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")


def make(family: str) -> Any:
    """The fast transformers tokenizer of a family (a key of ``FAMILIES``)."""
    return FAMILIES[family]()


def _word_piece(name: str, special: Sequence[str] = _BERT, **options: Any) -> Any:
    import transformers

    vocab = {token: i for i, token in enumerate((*special, *_words(options.get("do_lower_case", True))))}
    return getattr(transformers, name)(vocab=vocab, model_max_length=MAX_LENGTH, **options)


def _byte_level(name: str, special: Sequence[str], last: Sequence[str] = (), **options: Any) -> Any:
    import transformers

    pieces, merges = _byte_pairs()
    vocab = {token: i for i, token in enumerate((*special, *pieces, *last))}
    return getattr(transformers, name)(vocab=vocab, merges=list(merges), model_max_length=MAX_LENGTH, **options)


def _unigram(name: str, special: Sequence[str], last: Sequence[str] = (), **options: Any) -> Any:
    import transformers

    vocab = [(token, 0.0) for token in special] + list(_pieces()) + [(token, 0.0) for token in last]
    return getattr(transformers, name)(vocab=vocab, model_max_length=MAX_LENGTH, **options)


def _generic(special: Sequence[str], single: str, pair: str, mask: str | None = None, **names: Any) -> Any:
    """A tokenizer without a class of its own: byte-level BPE, as ModernBERT and Llama 3 are published."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import AddedToken, PreTrainedTokenizerFast

    pieces, merges = _byte_pairs()
    vocab = {token: i for i, token in enumerate((*special, *pieces))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, vocab[token]) for token in special if token in single]
    )
    if mask:
        names["mask_token"] = AddedToken(mask, lstrip=True, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=MAX_LENGTH, **names)


def _modern_bert() -> Any:
    return _generic(
        ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"),
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B [SEP]",
        mask="[MASK]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "attention_mask"],
    )


def _llama() -> Any:
    begin, end, pad = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
    return _generic(
        (begin, end, pad),
        f"{begin} $A",
        f"{begin} $A {begin}:1 $B:1",
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        model_input_names=["input_ids", "attention_mask"],
    )


def _roberta(**options: Any) -> Any:
    from transformers import AddedToken

    mask = AddedToken("<mask>", lstrip=True, special=True)
    return _byte_level("RobertaTokenizer", _ROBERTA, ("<mask>",), mask_token=mask, **options)


def _xlm_roberta() -> Any:
    from transformers import AddedToken

    mask = AddedToken("<mask>", lstrip=True, special=True)
    return _unigram("XLMRobertaTokenizer", _ROBERTA, ("<mask>",), mask_token=mask)


def _lstrip_mask(name: str, special: Sequence[str], last: Sequence[str] = (), **options: Any) -> Any:
    from transformers import AddedToken

    return _unigram(name, special, last, mask_token=AddedToken("[MASK]", lstrip=True, special=True), **options)


FAMILIES: dict[str, Any] = {
    "bert": functools.partial(_word_piece, "BertTokenizer"),
    "bert-cased": functools.partial(_word_piece, "BertTokenizer", do_lower_case=False),
    "bert-no-types": functools.partial(
        _word_piece, "BertTokenizer", do_lower_case=False, model_input_names=["input_ids", "attention_mask"]
    ),
    "mpnet": functools.partial(_word_piece, "MPNetTokenizer", ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")),
    "funnel": functools.partial(
        _word_piece, "FunnelTokenizer", ("<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<s>", "</s>")
    ),
    "roberta": _roberta,
    "modernbert": _modern_bert,
    "deberta": functools.partial(_byte_level, "DebertaTokenizer", ("[CLS]", "[PAD]", "[SEP]", "[UNK]"), ("[MASK]",)),
    "gpt2": functools.partial(_byte_level, "GPT2Tokenizer", (), ("<|endoftext|>",), pad_token="<|endoftext|>"),
    "qwen2": functools.partial(_byte_level, "Qwen2Tokenizer", (), ("<|endoftext|>",)),
    "llama": _llama,
    "xlm-roberta": _xlm_roberta,
    "camembert": functools.partial(
        _unigram,
        "CamembertTokenizer",
        ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"),
        ("<mask>",),
    ),
    "albert": functools.partial(_lstrip_mask, "AlbertTokenizer", ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "deberta-v2": functools.partial(_unigram, "DebertaV2Tokenizer", ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]",)),
    "rembert": functools.partial(_lstrip_mask, "RemBertTokenizer", ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "big-bird": functools.partial(
        _lstrip_mask, "BigBirdTokenizer", ("<pad>", "</s>", "<s>", "[CLS]", "[SEP]", "[MASK]", "<unk>")
    ),
    "xlnet": functools.partial(
        _unigram, "XLNetTokenizer", ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>")
    ),
    "t5": functools.partial(_unigram, "T5Tokenizer", ("<pad>", "</s>", "<unk>"), extra_ids=4),
}


def _corpus() -> Iterator[str]:
    return iter(TEXTS)


@functools.lru_cache
def _words(lower: bool) -> tuple[str, ...]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    words = [w for text in _corpus() for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    found: Counter[str] = Counter()
    for word in words:
        found.update("##" * (start > 0) + part for start, part in _parts(word))
    letters = [letter for letter, _ in _common(Counter("".join(words)), 320)]
    alphabet = [piece for letter in letters for piece in (letter, f"##{letter}")]
    longer = Counter({piece: n for piece, n in found.items() if len(piece.removeprefix("##")) > 1})
    return (*alphabet, *(piece for piece, _ in _common(longer, 900 - len(alphabet))))


@functools.lru_cache
def _byte_pairs() -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return _sorted(tokenizer), tuple((left, right) for left, right in merges)


@functools.lru_cache
def _pieces() -> tuple[tuple[str, float], ...]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.NFKC()
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    words = [w for text in _corpus() for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    found = Counter(part for word in words for _, part in _parts(word))
    letters = Counter("".join(words))
    longer = Counter({piece: n for piece, n in found.items() if len(piece) > 1})
    kept = [*_common(letters, len(letters)), *_common(longer, max(0, 900 - len(letters)))]
    total = sum(n for _, n in kept)
    return tuple((piece, math.log(n / total)) for piece, n in kept)


def _parts(word: str) -> Iterator[tuple[int, str]]:
    """The substrings of a word, of up to six letters, with where they start."""
    for start in range(len(word)):
        for end in range(start + 1, min(len(word), start + 6) + 1):
            yield start, word[start:end]


def _common(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    """The commonest, longer ones first among equals, then by the alphabet."""
    return sorted(counts.items(), key=lambda item: (-item[1], -len(item[0]), item[0]))[:most]


def _sorted(tokenizer: Any) -> tuple[str, ...]:
    vocab = tokenizer.get_vocab()
    return tuple(sorted(vocab, key=vocab.__getitem__))
