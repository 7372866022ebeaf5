"""Texts to ids and back in the generating model against the source's own library."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizers

from repo_builder.errors import SpecError
from repo_builder.tasks import seq2seq_tokens

pytestmark = pytest.mark.torch
TEMPLATE = Path(__file__).parents[3] / "templates" / "generate"


def save(family: str, folder: Path, **options: Any) -> Path:
    tiny_tokenizers.make(family).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    fields = {**json.loads(path.read_text(encoding="utf-8")), **options}
    path.write_text(json.dumps(fields), encoding="utf-8")
    return folder


def served(tokens: seq2seq_tokens.Tokens, folder: Path) -> Any:
    folder.mkdir()
    for name, content in tokens.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TEMPLATE))
        return importlib.import_module("texts").Tokens(folder, dict(tokens.parameters), 1)


def rows(size: int) -> list[list[int]]:
    chance = random.Random(0)
    return [[chance.randrange(size) for _ in range(chance.randrange(25))] for _ in range(300)]


@pytest.mark.parametrize("family", ["t5", "roberta"])
@pytest.mark.parametrize(
    "options", [{}, {"truncation_side": "left"}, {"clean_up_tokenization_spaces": True}], ids=lambda o: str([*o])
)
def test_ids_and_texts_equal_the_sources(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    tokens = seq2seq_tokens.tokens(save(family, tmp_path / "source", **options))
    own = served(tokens, tmp_path / "served")
    assert own.encode(list(tiny_tokenizers.TEXTS)) == [tokens.ids(text) for text in tiny_tokenizers.TEXTS]
    answers = rows(len(tiny_tokenizers.make(family)))
    answers += [tokens.ids(text) for text in (*tiny_tokenizers.TEXTS, "it is n't so , is it ? 'm 's 've 're ! .")]
    assert own.decode(answers) == [tokens.text(row) for row in answers]


def test_cleaning_up_changes_texts_of_pieces_but_not_of_bytes(tmp_path: Path) -> None:
    for family, changes in (("t5", True), ("roberta", False)):
        plain = seq2seq_tokens.tokens(save(family, tmp_path / family))
        cleaning = seq2seq_tokens.tokens(save(family, tmp_path / f"{family}_c", clean_up_tokenization_spaces=True))
        assert ("decoding_file" in cleaning.parameters) is changes
        text = "a , b ."
        assert (plain.text(plain.ids(text)) != cleaning.text(plain.ids(text))) is changes


def test_the_asked_length_cuts_texts(tmp_path: Path) -> None:
    tokens = seq2seq_tokens.tokens(save("t5", tmp_path / "source"), 9)
    assert tokens.parameters["max_length_of_text"] == "9"
    assert max(len(tokens.ids(text)) for text in tiny_tokenizers.TEXTS) == 9
    with pytest.raises(SpecError, match="max_length 1 for the model in"):
        seq2seq_tokens.tokens(tmp_path / "source", 1)
