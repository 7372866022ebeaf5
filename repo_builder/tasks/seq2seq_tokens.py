"""What an encoder-decoder's tokenizer does with texts and answers, as files and parameters of the generating model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.planned import Content
from repo_builder.tasks import marian_tokenizer, tokenizer
from repo_builder.tasks.tokenizer_source import longest_text, source_tokenizer

# transformers' clean_up_tokenization: replaced in this order.
_CLEANED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"))
_CLEANED_WORDS = ((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
DECODING = "decoding.json"


@dataclass(frozen=True)
class Tokens:
    """One folder's tokenizer.

    Attributes:
        files: files of the version folder, by name.
        parameters: config parameters of ``templates/generate/model.py``.
        ids: the source's own library: the encoder's ids of a text, special tokens included, cut at its length.
        text: the source's own library: the text of an answer's ids without special tokens.
    """

    files: Mapping[str, Content]
    parameters: Mapping[str, str]
    ids: Callable[[str], list[int]]
    text: Callable[[list[int]], str]


def tokens(folder: Path, asked: int | None = None) -> Tokens:
    """The tokens of a Hugging Face folder.

    Args:
        asked: tokens kept of a text; None leaves the source's own limit.

    Raises:
        MissingDependencyError, SourceMissingError, SourceCorruptError, UnsafeSourceError: see
            :func:`~repo_builder.tasks.tokenizer_source.source_tokenizer`.
        SpecError: ``asked`` is too short or too long for the model.
    """
    if marian_tokenizer.matches(folder):
        return _marian(folder, asked)
    settings = tokenizer.settings(folder, max_length=asked)
    source = source_tokenizer(folder)
    files: dict[str, Content] = {"tokenizer.json": settings.tokenizer}
    parameters = {
        "max_length_of_text": json.dumps(settings.max_length),
        "truncation_side": settings.truncation_side,
        "pad_id": str(settings.pad_id),
        "split_special_tokens": json.dumps(settings.split_special_tokens),
    }
    if _cleans_up(source):
        files[DECODING] = _cleaning(source.backend_tokenizer)
        parameters["decoding_file"] = DECODING
    cut = {"truncation": settings.max_length is not None, "max_length": settings.max_length}

    def ids(text: str) -> list[int]:
        return list(source(text, **cut)["input_ids"]) or [settings.pad_id]

    return Tokens(files, {k: v for k, v in parameters.items() if v != "null"}, ids, _decoder(source))


def _marian(folder: Path, asked: int | None) -> Tokens:
    source = marian_tokenizer.source(folder)
    made = marian_tokenizer.convert(folder, source)
    longest = longest_text(folder, source, asked)
    parameters = {**made.parameters, "max_length_of_text": json.dumps(longest), "pad_id": str(source.pad_token_id)}
    cut = {"truncation": longest is not None, "max_length": longest}

    def ids(text: str) -> list[int]:
        return list(source(text, **cut)["input_ids"])

    return Tokens(made.files, {k: v for k, v in parameters.items() if v != "null"}, ids, _decoder(source))


def _decoder(source: Any) -> Callable[[list[int]], str]:
    return lambda ids: str(source.decode(ids, skip_special_tokens=True))


def _cleans_up(source: Any) -> bool:
    """Whether decoding removes spaces before punctuation; since transformers 5 never for BPE, unless it is told to."""
    if not source.clean_up_tokenization_spaces:
        return False
    forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    return type(source.backend_tokenizer.model).__name__ != "BPE" or bool(getattr(source, forced, True))


def _cleaning(backend: Any) -> bytes:
    """The tokenizer with a decoder that cleans up as transformers' Python code does after it."""
    from tokenizers import Tokenizer, decoders

    copy = Tokenizer.from_str(backend.to_str())
    steps = [decoders.Fuse(), *(decoders.Replace(old, new) for old, new in (*_CLEANED, *_CLEANED_WORDS))]
    copy.decoder = decoders.Sequence([copy.decoder, *steps] if copy.decoder else steps)
    return str(copy.to_str()).encode()
