"""The tokenizer's model.py with pairs of texts, and its further outputs, against transformers."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import backend_utils_stand_in as stand_in
import numpy as np
import pytest

from repo_builder.errors import MissingDependencyError, SourceCorruptError, SourceMissingError
from repo_builder.tasks import tokenizer
from repo_builder.tasks.tokenizer import Layout
from repo_builder.tensors import TensorSpec
from tests import tiny_tokenizers

TEXTS = tiny_tokenizers.TEXTS
LONG = max(TEXTS, key=len)
PAIRS = [*zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True), ("", ""), (LONG, LONG), ("a", LONG), (LONG, "a")]
INPUTS = tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in tokenizer.OUTPUTS)
FAMILIES = ("bert", "roberta", "modernbert", "llama", "gpt2_left", "xlnet", "deberta-v2", "t5")


@functools.lru_cache
def saved(family: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=family))
    atexit.register(shutil.rmtree, folder)
    tiny_tokenizers.make(family.removesuffix("_left")).save_pretrained(folder)
    if family.endswith("_left"):
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"padding_side": "left", "truncation_side": "left"}
        path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@functools.lru_cache
def source(family: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(saved(family))


def serve(folder: Path, repository: Path, layout: Layout, extra: Sequence[str] = (), **changes: Any) -> Any:
    settings = replace(tokenizer.settings(folder), **changes)
    planned = tokenizer.model(
        "tok", folder, INPUTS, settings, max_batch_size=64, layout=layout, extra=extra, vendor=False
    )
    return stand_in.load(*stand_in.write(planned, repository))


def pairs(several: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    raw = [[text.encode() if isinstance(text, str) else text for text in pair] for pair in several]
    return {"PAIRS": np.array(raw, dtype=object).reshape(-1, 2)}


def layout(truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first") -> Layout:
    return Layout("pairs", {"PAIRS": 2}, truncation=truncation)


def expected(family: str, several: Sequence[tuple[str, str]], truncation: str) -> Any:
    return source(family)(
        [first for first, _ in several],
        [second for _, second in several],
        padding=True,
        truncation=truncation,
        max_length=tiny_tokenizers.MAX_LENGTH,
        return_token_type_ids=True,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_equal_the_source_alone_and_in_merged_requests(family: str, tmp_path: Path) -> None:
    served = serve(saved(family), tmp_path, layout())
    parts = [[pair] for pair in PAIRS] + [PAIRS[start : start + 9] for start in range(0, len(PAIRS), 9)]
    for part, answer in zip(parts, served.execute([pairs(part) for part in parts]), strict=True):
        assert answer.error is None
        found = expected(family, part, "longest_first")
        for name in tokenizer.OUTPUTS:
            if np.array(found[name]).size:
                np.testing.assert_array_equal(answer.arrays[name], found[name], err_msg=f"{name} of {part}")
            else:
                assert answer.arrays[name].shape == (len(part), 1)


def test_the_families_cover_what_pairs_are_told_by(tmp_path: Path) -> None:
    def ids(family: str) -> dict[str, list[list[int]]]:
        [answer] = serve(saved(family), tmp_path / family, layout()).execute([pairs([("a", "b"), ("a", LONG)])])
        return {name: array.tolist() for name, array in answer.arrays.items()}

    close = source("roberta").eos_token_id
    assert ids("roberta")["input_ids"][0][2:4] == [close, close], "two </s> between the texts"
    bert = ids("bert")
    assert bert["token_type_ids"][0][:5] == [0, 0, 0, 1, 1]
    assert bert["token_type_ids"][0][5:] == [0] * 43
    assert bert["attention_mask"][0] == [1] * 5 + [0] * 43
    left = ids("xlnet")
    assert left["token_type_ids"][0][-5:] == [0, 0, 1, 1, 2]
    assert left["attention_mask"][0] == [0] * 43 + [1] * 5
    assert ids("gpt2_left")["attention_mask"][0] == [0] * 46 + [1, 1]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2_left"])
@pytest.mark.parametrize("truncation", ["only_first", "only_second"])
def test_one_text_of_a_pair_is_cut(family: str, truncation: Any, tmp_path: Path) -> None:
    served = serve(saved(family), tmp_path, layout(truncation))
    short = [pair for pair in PAIRS if len(pair[truncation == "only_first"].encode()) < 25]
    answers = served.execute([pairs(short)])
    found = expected(family, short, truncation)
    for name in tokenizer.OUTPUTS:
        np.testing.assert_array_equal(answers[0].arrays[name], found[name], err_msg=name)
    assert np.shape(found["input_ids"])[1] == tiny_tokenizers.MAX_LENGTH


@pytest.mark.parametrize("family", ["bert", "xlnet", "gpt2_left", "gpt2"])
@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_further_outputs_equal_the_source_under_padding_and_buckets(family: str, kind: str, tmp_path: Path) -> None:
    chosen = layout() if kind == "pairs" else tokenizer.TEXT_LAYOUT
    served = serve(saved(family), tmp_path, chosen, tokenizer.EXTRA, pad_lengths=(16, 32, 64))
    part = PAIRS[:40]
    texts = part if kind == "pairs" else [first for first, _ in part]
    request = pairs(part) if kind == "pairs" else stand_in.request(texts)
    [answer] = served.execute([request])
    found = source(family)(
        texts, truncation="longest_first", return_offsets_mapping=True, return_special_tokens_mask=True
    )
    width = answer.arrays["input_ids"].shape[1]
    assert width == tiny_tokenizers.MAX_LENGTH, "no bucket reaches beyond the limit"
    assert answer.arrays["offsets"].shape == (len(part), width, 2)
    for row in range(len(part)):
        length = len(found["input_ids"][row])
        span = slice(width - length, width) if source(family).padding_side == "left" else slice(0, length)
        fill = np.ones(width, dtype=bool)
        fill[span] = False
        rows = {
            "offsets": (np.reshape(found["offset_mapping"][row], (-1, 2)), 0),
            "special_tokens_mask": (found["special_tokens_mask"][row], 1),
            "sequence_ids": ([-1 if i is None else i for i in found.sequence_ids(row)], -1),
            "word_ids": ([-1 if i is None else i for i in found.word_ids(row)], -1),
        }
        for name, (values, padding) in rows.items():
            array = answer.arrays[name]
            assert array.dtype == np.int32
            np.testing.assert_array_equal(array[row][span], values, err_msg=f"{name} of {texts[row]!r}")
            assert (array[row][fill] == padding).all(), name


def test_offsets_count_characters_not_bytes(tmp_path: Path) -> None:
    served = serve(saved("roberta"), tmp_path, tokenizer.TEXT_LAYOUT, ["offsets"])
    text = "né 🚀 a"
    [answer] = served.execute([stand_in.request([text])])
    real = answer.arrays["offsets"][0]
    assert real.max() == len(text) == 6
    assert text[slice(*real[-2])].strip() == "a"


def test_one_refused_request_leaves_its_batch_mates_served(tmp_path: Path) -> None:
    """Bad UTF-8 is found before the call, a pair that cannot be cut by the library itself."""
    served = serve(saved("bert"), tmp_path, layout("only_first"))
    requests = [[("a", "b")], [("a", "b"), ("a", b"sea\xff")], [("a", LONG)], [(LONG, "b")]]
    good, bad, stuck, cut = served.execute([pairs(several) for several in requests])
    assert str(bad.error) == "input 'PAIRS': text 1 is not UTF-8: invalid start byte at byte 3 (0xff)"
    assert str(stuck.error).startswith("'PAIRS' cannot be encoded: Truncation error: Sequence to truncate too short")
    assert {each.error.code for each in (bad, stuck)} == {stand_in.TritonError.INVALID_ARG}
    for answer, several in ((good, requests[0]), (cut, requests[3])):
        found = expected("bert", several, "only_first")
        for name in tokenizer.OUTPUTS:
            np.testing.assert_array_equal(answer.arrays[name], found[name])


@pytest.mark.parametrize("shape", [(2,), (1, 1), (1, 3), (1, 2, 1)])
def test_other_shapes_than_two_texts_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    served = serve(saved("bert"), tmp_path, layout())
    [answer] = served.execute([{"PAIRS": np.full(shape, b"a", dtype=object)}])
    assert str(answer.error) == f"input 'PAIRS' has shape {list(shape)}, expected [batch, 2]: two texts in each row"


def test_buckets_round_each_request_for_itself(tmp_path: Path) -> None:
    served = serve(saved("roberta"), tmp_path, layout(), pad_lengths=(8, 24))
    answers = served.execute([pairs([("a", "b")]), pairs([("a b c", "d e f")]), pairs([(LONG, LONG)])])
    assert [answer.arrays["input_ids"].shape for answer in answers] == [(1, 8), (1, 24), (1, 48)]
    pad = source("roberta").pad_token_id
    assert answers[0].arrays["input_ids"][0].tolist()[6:] == [pad, pad]


SLOW = {
    "CTRLTokenizer": {"vocab.json": '{"<unk>": 0, "a</w>": 1}', "merges.txt": "#version: 0.2\n"},
    "EsmTokenizer": {"vocab.txt": "<cls>\n<pad>\n<eos>\n<unk>\nA\n<mask>\n"},
    "PhobertTokenizer": {"vocab.txt": "a 1\n", "bpe.codes": "a b</w> 1\n"},
}


@pytest.mark.parametrize("name", list(SLOW))
def test_a_tokenizer_in_python_alone_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    for file, content in {**SLOW[name], "tokenizer_config.json": f'{{"tokenizer_class": "{name}"}}'}.items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(SourceCorruptError) as caught:
        tokenizer.settings(tmp_path)
    assert str(caught.value) == (
        f"the tokenizer in {tmp_path} ({name}) runs in Python alone, it has no fast form\n"
        "  expected: a tokenizer.json, or a vocabulary that transformers converts to one\n"
        "  to mend it: put a tokenizer.json of the tokenizers library with the same ids into the folder and write "
        '"tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json'
    )


def test_the_mend_works(tmp_path: Path) -> None:
    """A folder of a slow class, Marian's, with the fast file and the class that the message names."""
    source("t5").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "marian"}', encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}', encoding="utf-8"
    )
    served = serve(tmp_path, tmp_path / "served", tokenizer.TEXT_LAYOUT)
    [answer] = served.execute([stand_in.request(["a river"])])
    assert answer.arrays["input_ids"].tolist() == [source("t5")("a river")["input_ids"]]


def test_a_package_that_a_vocabulary_needs_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refused(*_: Any, **__: Any) -> None:
        raise ImportError("\nMarianTokenizer requires the SentencePiece library but it was not found.\nMore of it.\n")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refused)
    (tmp_path / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MissingDependencyError) as caught:
        tokenizer.settings(tmp_path)
    assert str(caught.value).splitlines() == [
        f"the tokenizer in {tmp_path} needs a package that is not installed: "
        "MarianTokenizer requires the SentencePiece library but it was not found.",
        '  to mend it: install it; or put a tokenizer.json into the folder and write "tokenizer_class": '
        '"PreTrainedTokenizerFast" into tokenizer_config.json',
    ]


def test_a_tokenizer_without_any_vocabulary_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}', encoding="utf-8")
    with pytest.raises(SourceMissingError, match=r"one without a vocabulary \(ByT5, Canine\) has no fast form"):
        tokenizer.settings(tmp_path)
