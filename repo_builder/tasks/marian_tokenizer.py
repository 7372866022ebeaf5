"""Marian's slow tokenizer (two sentencepiece models and a vocabulary) as files of the fast `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.errors import MissingDependencyError, SourceCorruptError, first_line
from repo_builder.planned import Content

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
DECODING, TOKEN_IDS, CHARSMAP = "decoding.json", "token_ids.json", "charsmap.bin"
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece writes it for a space
_UNIGRAM = 1  # sentencepiece_model.proto, TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5  # ModelProto.SentencePiece.Type


@dataclass(frozen=True)
class Converted:
    """Files of the version folder by name, and config parameters of ``templates/generate/model.py``."""

    files: Mapping[str, Content]
    parameters: Mapping[str, str]


def matches(folder: Path) -> bool:
    """Whether the folder has Marian's files and no tokenizer.json."""
    return (
        all((folder / n).is_file() for n in (SOURCE, TARGET, VOCABULARY)) and not (folder / "tokenizer.json").is_file()
    )


def source(folder: Path) -> Any:
    """The folder's own ``MarianTokenizer``.

    Raises:
        MissingDependencyError: sentencepiece, which transformers needs for it, is not installed.
        SourceCorruptError: it does not load.
    """
    import warnings

    try:
        import sentencepiece  # type: ignore[import-not-found,unused-ignore] # noqa: F401
        from transformers import MarianTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"Marian's tokenizer in {folder} needs the package {error.name}", mend="pip install sentencepiece"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends sacremoses, which it does not use for texts
            return MarianTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise SourceCorruptError(
            f"the tokenizer in {folder} does not load: {first_line(error)}",
            expected=f"{SOURCE}, {TARGET} and {VOCABULARY} that transformers' MarianTokenizer loads",
            mend="fetch or save the model's folder again",
        ) from error


def convert(folder: Path, tokenizer: Any) -> Converted:
    """A Unigram tokenizer with the pieces of source.spm, the model's id of each, and a decoder of vocab.json.

    Raises:
        SourceCorruptError: source.spm is of a kind that the fast library does not carry exactly.
    """
    model = _proto(folder / SOURCE)
    encoding, pieces = _encoding(model, tokenizer)
    charsmap = bytes(model.normalizer_spec.precompiled_charsmap)
    vocabulary = dict(tokenizer.encoder)
    unknown = vocabulary[tokenizer.unk_token]
    codes = {code: vocabulary[code] for code in tokenizer.supported_language_codes}
    return Converted(
        {
            "tokenizer.json": encoding,
            DECODING: _decoding(tokenizer),
            **({CHARSMAP: charsmap} if charsmap else {}),
            TOKEN_IDS: json.dumps([vocabulary.get(piece, unknown) for piece in pieces]).encode(),
        },
        {
            "decoding_file": DECODING,
            "strip_text": "true",
            "token_ids_file": TOKEN_IDS,
            **({"charsmap_file": CHARSMAP} if charsmap else {}),
            "language_codes": json.dumps(codes, ensure_ascii=False, sort_keys=True),
            "unk_token_id": str(unknown),
        },
    )


def _proto(path: Path) -> Any:
    # sentencepiece's own module is bound to one version of protobuf
    from transformers.utils import sentencepiece_model_pb2_new

    model = sentencepiece_model_pb2_new.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:
        raise SourceCorruptError(
            f"{path} is no sentencepiece model ({error})", mend="fetch the folder again"
        ) from error
    kinds = {piece.type for piece in model.pieces}
    spec = model.normalizer_spec
    if (
        model.trainer_spec.model_type != _UNIGRAM
        or kinds - {_NORMAL, _UNKNOWN, _CONTROL, _UNUSED}
        or not (spec.add_dummy_prefix and spec.remove_extra_whitespaces and spec.escape_whitespaces)
        or model.trainer_spec.treat_whitespace_as_suffix
    ):
        raise SourceCorruptError(
            f"{path} is not of the kind that the fast library splits texts with exactly as sentencepiece does",
            expected="a unigram model of plain pieces, with a space in front of every text and extra spaces removed",
            mend="put a tokenizer.json with the same ids into the folder, and its class into tokenizer_config.json",
        )
    return model


def _encoding(model: Any, tokenizer: Any) -> tuple[bytes, list[str]]:
    """tokenizer.json, and the piece of every one of its ids."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    plain = (_NORMAL, _UNKNOWN)
    # No text holds a space when it comes to the pieces, so a name with one is never found.
    pieces = [(p.piece if p.type in plain else f"{i} {p.piece}", p.score) for i, p in enumerate(model.pieces)]
    unknown = next(i for i, piece in enumerate(model.pieces) if piece.type == _UNKNOWN)
    made = Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=False))
    steps = [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=False)
    special = [str(token) for token in tokenizer.all_special_tokens]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    names = [p.piece for p in model.pieces]
    size = made.get_vocab_size(with_added_tokens=True)
    names += [str(made.id_to_token(i)) for i in range(len(names), size)]
    end = tokenizer.eos_token
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, made.token_to_id(end))]
    )
    return str(made.to_str()).encode(), names


def _decoding(tokenizer: Any) -> bytes:
    """vocab.json as a tokenizer that only decodes: pieces are joined, and their marks become spaces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    words = tokenizer.target_encoder if tokenizer.separate_vocabs else tokenizer.encoder
    made = Tokenizer(models.WordLevel(dict(words), unk_token=tokenizer.unk_token))
    made.add_special_tokens([AddedToken(str(t), normalized=False, special=True) for t in tokenizer.all_special_tokens])
    made.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.Fuse()])
    return str(made.to_str()).encode()
