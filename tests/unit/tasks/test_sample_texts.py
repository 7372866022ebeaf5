"""The texts of the default proof: many scripts, many lengths, the odd characters that break text paths."""

from __future__ import annotations

import unicodedata

import pytest
from tokenizer_families import TEXTS, minilm

from repo_builder.errors import SpecError
from repo_builder.spec import ModelSpec, Samples
from repo_builder.tasks.samples import texts as samples

SCRIPTS = {
    *("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "THAI", "GEORGIAN"),
    *("ARMENIAN", "ETHIOPIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL"),
}


def test_there_are_64_different_texts() -> None:
    assert len(TEXTS) == 64
    assert len(set(TEXTS)) == 64


def test_each_of_sixteen_scripts_has_a_text_of_its_own() -> None:
    mostly = set()
    for text in TEXTS:
        letters = [unicodedata.name(c).split()[0] for c in text if unicodedata.category(c) in ("Lo", "Ll", "Lu")]
        if letters:
            mostly.add(max(sorted(set(letters)), key=letters.count))
    assert mostly >= SCRIPTS


def test_the_odd_ones_are_there() -> None:
    assert {"", " ", "a"} <= set(TEXTS)
    everything = "".join(TEXTS)
    for character in ("\u200d", "\u202e", "\u0301", "\u0000", "\ufeff", "\u00ad", "\t", "\r", "\u200b", "\U0001f3fd"):
        assert character in everything, f"U+{ord(character):04X}"
    assert any({unicodedata.bidirectional(c) for c in text} >= {"L", "R", "AL"} for text in TEXTS), (
        "left-to-right, Hebrew and Arabic in one text"
    )


def test_the_lengths_reach_from_none_to_more_than_256_tokens_of_minilm() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(minilm()))
    lengths = [len(ids) for ids in tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"]]
    steps = ((0, 0), (1, 1), (2, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 254), (257, 600))
    for low, high in steps:
        assert any(low <= length <= high for length in lengths), f"{low} to {high} tokens"
    assert sum(length > 256 for length in lengths) >= 3


def test_an_empty_list_of_texts_is_refused() -> None:
    with pytest.raises(SpecError, match=r"samples\.texts is empty"):
        samples(ModelSpec(source="m", samples=Samples(texts=())))
