"""Marian's tokenizer in the fast library against transformers' slow one, with tiny sentencepiece models."""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_seq2seq
import tiny_tokenizers

from repo_builder.errors import MissingDependencyError, SourceCorruptError
from repo_builder.tasks import seq2seq_tokens

pytestmark = pytest.mark.torch
TEMPLATE = Path(__file__).parents[3] / "templates" / "generate"
ODD = (
    *("", " ", "  a  b ", "x</s>y", "<unk> a <pad>", "a\N{NO-BREAK SPACE}b", "\t a\n\n b", "▁", "<s> a", "ﬁne ①"),
    *(">>fra<< a cat", ">>xyz<< a cat", ">>fra a cat", "a >>fra<< cat", "．．．", "\u200b", "e\u0301", "각"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    made = tmp_path_factory.mktemp("marian")
    tiny_seq2seq.marian_tokenizer(made)
    return made


def served_tokens(tokens: seq2seq_tokens.Tokens, folder: Path) -> Any:
    """The class of the generating model that does the same, without the rest of it."""
    for name, content in tokens.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TEMPLATE))
        return importlib.import_module("texts").Tokens(folder, dict(tokens.parameters), 1)


@pytest.fixture(scope="module")
def both(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[seq2seq_tokens.Tokens, Any]:
    tokens = seq2seq_tokens.tokens(folder)
    return tokens, served_tokens(tokens, tmp_path_factory.mktemp("served"))


def test_ids_of_texts_equal_the_slow_tokenizers(both: tuple[seq2seq_tokens.Tokens, Any]) -> None:
    source, served = both
    texts = [*tiny_tokenizers.TEXTS, *ODD]
    found = served.encode(texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids == source.ids(text), text
    assert any(1 in ids for ids in found), "some piece is not in the vocabulary"
    assert max(map(len, found)) == tiny_tokenizers.MAX_LENGTH, "some text is cut"


def test_texts_of_ids_equal_the_slow_tokenizers(both: tuple[seq2seq_tokens.Tokens, Any], folder: Path) -> None:
    source, served = both
    size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    chance = random.Random(0)
    rows = [[chance.randrange(size) for _ in range(chance.randrange(20))] for _ in range(500)]
    assert served.decode(rows) == [source.text(row) for row in rows]


@pytest.mark.parametrize(
    "options", [{"model_type": "bpe"}, {"user_defined_symbols": ["@@"]}, {"treat_whitespace_as_suffix": True}]
)
def test_other_kinds_of_sentencepiece_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    pytest.importorskip("sentencepiece")
    tiny_seq2seq.marian_tokenizer(tmp_path, **options)
    with pytest.raises(SourceCorruptError) as refused:
        seq2seq_tokens.tokens(tmp_path)
    assert "source.spm is not of the kind that the fast library splits texts with" in str(refused.value)


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError) as refused:
        seq2seq_tokens.tokens(tmp_path)
    assert "pip install sentencepiece" in str(refused.value)
