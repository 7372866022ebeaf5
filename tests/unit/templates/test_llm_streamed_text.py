"""Text that comes token by token: joined it is what the tokenizers library decodes of all ids."""

from __future__ import annotations

import codecs
import functools
from typing import Any

import language_tokenizers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import TEXTS
from tokenizers import Tokenizer, decoders, models

from repo_builder.tasks.llm_tokens import _module

KINDS = ("byte_level", "normalizer", "metaspace")
BROKEN = "�"


@functools.cache
def tokenizer(kind: str) -> Any:
    made = language_tokenizers.byte_level() if kind == "byte_level" else language_tokenizers.byte_fallback(kind)
    return Tokenizer.from_str(made)


@functools.cache
def detokenizer(kind: str, skip: bool = True) -> Any:
    return _module("streamed_text").Detokenizer(tokenizer(kind), skip)


def parts(kind: str, ids: list[int], size: int = 1, skip: bool = True) -> list[str]:
    stream = detokenizer(kind, skip).stream()
    return [*(stream.push(ids[at : at + size]) for at in range(0, len(ids), size)), stream.finish()]


def joined(pieces: list[bytes]) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return "".join(map(decoder.decode, pieces)) + decoder.decode(b"", final=True)


def ids_of(kind: str) -> st.SearchStrategy[list[int]]:
    """Any ids, among them special and unknown ones, with many that are bytes of characters."""
    size = tokenizer(kind).get_vocab_size()
    characters = st.text(alphabet="晚上睡👩\u200d🇨🇳é ▁\nab", max_size=6).map(
        lambda text: tokenizer(kind).encode(text, add_special_tokens=False).ids
    )
    some = st.one_of(
        st.lists(st.integers(0, size + 3), max_size=6), st.lists(st.integers(3, 258), max_size=6), characters
    )
    return st.lists(some, max_size=6).map(lambda lists: [token for one in lists for token in one])


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_deltas_join_to_what_the_library_decodes(kind: str, skip: bool) -> None:
    @settings(max_examples=60, deadline=None)
    @given(ids=ids_of(kind), size=st.integers(1, 4))
    def check(ids: list[int], size: int) -> None:
        expected = tokenizer(kind).decode(ids, skip_special_tokens=skip)
        assert "".join(parts(kind, ids, size, skip)) == expected
        assert detokenizer(kind, skip).text(ids) == expected

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*TEXTS[:40:3], *language_tokenizers.EMOJI, "🏴󠁧󠁢󠁥󠁮󠁧󠁿🧑🏿‍🚀", "ab👩"])
def test_no_delta_has_half_a_character(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text, add_special_tokens=False).ids
    pieces = parts(kind, ids)
    assert "".join(pieces) == text
    assert not any(BROKEN in piece for piece in pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tail_that_stays_broken_is_told_at_the_end_alone(kind: str) -> None:
    ids = tokenizer(kind).encode("ab🦕", add_special_tokens=False).ids[:-1]
    *pieces, last = parts(kind, ids)
    assert "".join(pieces) == "ab"
    assert last
    assert set(last) == {BROKEN}
    assert "ab" + last == tokenizer(kind).decode(ids)


def test_byte_tokens_wait_for_the_end_of_their_run() -> None:
    """The library reads a run whole: a byte that fits nowhere breaks the characters before it."""
    ids = [tokenizer("normalizer").token_to_id(token) for token in ("▁", "<0xF0>", "<0x9F>", "<0x91>", "<0xA9>", "a")]
    assert parts("normalizer", ids) == ["", "", "", "", "", "👩a", ""]
    assert parts("normalizer", ids[:-1]) == ["", "", "", "", "", "👩"]
    broken = [*ids[:-1], ids[1], ids[-1]]
    assert "".join(parts("normalizer", broken)) == BROKEN * 5 + "a" == tokenizer("normalizer").decode(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_decoded_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    found = _module("streamed_text").Detokenizer(tokenizer(kind))

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer(kind), name)

        def decode(self, ids: list[int], **options: Any) -> str:
            seen.append(len(ids))
            return str(tokenizer(kind).decode(ids, **options))

    monkeypatch.setattr(found, "tokenizer", Counting())
    ids = tokenizer(kind).encode("晚上👩‍👩‍👧睡不着 the fox " * 50, add_special_tokens=False).ids
    stream = found.stream()
    for token in ids:
        stream.push([token])
    assert sum(seen) <= 2 * len(ids) + 2


@pytest.mark.parametrize("kind", KINDS)
def test_stateless_parts_join_to_the_same_text(kind: str) -> None:
    """But for the space in front, which only the start of a text loses."""

    @settings(max_examples=60, deadline=None)
    @given(ids=ids_of(kind), cuts=st.lists(st.integers(1, 5), max_size=12))
    def check(ids: list[int], cuts: list[int]) -> None:
        ids = [token for token in ids if token not in detokenizer(kind).special]
        pieces, at = [], 0
        for size in [*cuts, len(ids) + 1]:
            pieces.append(detokenizer(kind).part(ids[at : at + size]))
            at += size
        whole = detokenizer(kind).continued(ids)
        if kind == "byte_level":
            assert joined(pieces) == whole == tokenizer(kind).decode(ids)
        elif BROKEN not in whole:
            assert joined(pieces) == whole
            assert whole in (tokenizer(kind).decode(ids), " " + tokenizer(kind).decode(ids))
        assert detokenizer(kind).part(ids[:0]) == b""

    check()


def test_stateless_parts_are_bytes_at_both_ends() -> None:
    for kind in KINDS:
        ids = tokenizer(kind).encode("ab👩c", add_special_tokens=False).ids
        for cut in range(len(ids) + 1):
            first, second = detokenizer(kind).part(ids[:cut]), detokenizer(kind).part(ids[cut:])
            assert (first + second).decode("utf-8").strip() == "ab👩c", (kind, cut)


def test_a_part_that_begins_with_a_special_token_is_the_start_of_a_text() -> None:
    ids = tokenizer("normalizer").encode("hello").ids
    assert ids[0] == 1
    assert detokenizer("normalizer").part(ids) == b"hello"
    assert detokenizer("normalizer").part(ids[1:]) == b" hello"


def test_a_tokenizer_whose_text_changes_behind_itself_is_no_stream() -> None:
    """The builder refuses it (see tasks/llm_tokens)."""
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")])
    stream = _module("streamed_text").Detokenizer(made).stream()
    assert "".join([stream.push([0]), stream.push([1]), stream.finish()]) != "c"
    assert made.decode([0, 1]) == "c"
