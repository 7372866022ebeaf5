"""ChatGLM's tokenizer (a sentencepiece model and code of its own) as a tokenizer.json; that code is never run.

What the code does is known (tokenization_chatglm.py of ChatGLM2-6B and ChatGLM3-6B): special tokens follow the
sentencepiece vocabulary in a fixed order, ``[gMASK] sop`` stand in front of every text, and names of special tokens in
a text are plain text. Where the folder has no chat template, the one here writes what ``build_prompt`` (ChatGLM2) or
``build_chat_input`` (ChatGLM3) does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.errors import MissingDependencyError, SourceCorruptError
from repo_builder.formats import source_file

CLASS, MODEL, CODE = "ChatGLMTokenizer", "tokenizer.model", "tokenization_chatglm.py"
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
PREFIX = ("[gMASK]", "sop")
ROUNDS = (
    "{% set ns = namespace(round=1) %}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[Round ' ~ ns.round ~ ']\\n\\n问：' ~ message['content'] ~ '\\n\\n答：' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] ~ '\\n\\n' }}{% set ns.round = ns.round + 1 %}"
    "{% else %}{{ raise_exception('ChatGLM2 knows the roles user and assistant') }}{% endif %}{% endfor %}"
)
TURNS = (
    "{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>\\n ' ~ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SAMPLES = (
    "晚上睡不着应该怎么办",
    "[Round 1]\n\n问：你好\n\n答：",
    " two  spaces, and a tab\tor\n\n  lines ",
    "Größe, naïve, Ωμέγα, привет, 안녕하세요, ภาษาไทย, ١٢٣, ½ ﬁ Ａ",
    "👩‍👩‍👧‍👦 🇨🇳🇩🇪 👍🏽 ❤️ 𠮷野家",
    "sophisticated sop [gMASK] </s> <unk> <|user|> ▁ 3.14159 x=f(y);",
    "",
)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece writes it for a space
_BPE = 2  # sentencepiece_model.proto, TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _USER_DEFINED, _BYTE = 1, 2, 4, 6  # ModelProto.SentencePiece.Type


@dataclass(frozen=True)
class ChatGlm:
    """
    Attributes:
        tokenizer: of the `tokenizers` library.
        chat_template: behind ``prefix``; derived, not the folder's own.
        parses_roles: the names of roles in a prompt are special tokens.
    """

    tokenizer: Any
    chat_template: str
    parses_roles: bool


def matches(folder: Path) -> bool:
    """Whether the folder's tokenizer is ChatGLM2's or ChatGLM3's own class, and nothing faster lies beside it."""
    config = folder / "tokenizer_config.json"
    if (folder / "tokenizer.json").is_file() or not (folder / MODEL).is_file() or not config.is_file():
        return False
    return bool(source_file.read_json(config).get("tokenizer_class") == CLASS)


def convert(folder: Path) -> ChatGlm:
    """The tokenizer, which splits :data:`SAMPLES` and reads them back exactly as sentencepiece does.

    Raises:
        MissingDependencyError: sentencepiece, tokenizers or transformers is not installed.
        SourceCorruptError: tokenizer.model is none, or of a kind that is not carried exactly.
    """
    try:
        from sentencepiece import SentencePieceProcessor  # type: ignore[import-not-found,unused-ignore]
        from transformers.utils import sentencepiece_model_pb2_new
    except ImportError as error:
        raise MissingDependencyError(
            f"the tokenizer in {folder} needs the package {error.name}", mend="pip install 'repo-builder[huggingface]'"
        ) from error
    path = folder / MODEL
    model = sentencepiece_model_pb2_new.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        processor = SentencePieceProcessor(model_file=str(path))
    except Exception as error:
        raise SourceCorruptError(
            f"{path} is no sentencepiece model", expected="the file that the model was published with"
        ) from error
    code = folder / CODE
    roles = code.is_file() and ROLES[0] in code.read_text(encoding="utf-8")
    made = _tokenizer(model, (*SPECIAL, *ROLES) if roles else SPECIAL)
    _check(path, made, processor)
    return ChatGlm(made, TURNS if roles else ROUNDS, roles)


def _tokenizer(model: Any, special: tuple[str, ...]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    spec = model.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    symbols = sorted((p.piece for p in model.pieces if p.type == _USER_DEFINED), key=len, reverse=True)
    made = Tokenizer(_model(model, special, bool(symbols)))
    made.normalizer = normalizers.Sequence(steps)
    if symbols:  # they are never split, nor joined with what stands beside them
        made.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated")
    decoding = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*decoding, *([decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else [])])
    plain = (_NORMAL, _USER_DEFINED, _BYTE)
    control = [piece.piece for piece in model.pieces if piece.type not in plain]
    words = [AddedToken(t, normalized=False, special=True, single_word=t.isalpha()) for t in (*control, *special)]
    made.add_special_tokens(words)
    made.post_processor = processors.TemplateProcessing(
        single=[*PREFIX, "$A"], special_tokens=[(token, made.token_to_id(token)) for token in PREFIX]
    )
    made.encode_special_tokens = True
    return made


def _model(model: Any, special: tuple[str, ...], symbols: bool) -> Any:
    """Pieces and special tokens by id; of BPE every pair of pieces that makes a piece, the better one first."""
    from tokenizers import models

    unknown = next(p.piece for p in model.pieces if p.type == _UNKNOWN)
    fallback = bool(model.trainer_spec.byte_fallback)
    if model.trainer_spec.model_type != _BPE:
        raise SourceCorruptError(
            f"{MODEL} is of sentencepiece's model type {model.trainer_spec.model_type}",
            expected="BPE (2)",
            mend="put a tokenizer.json with the same ids into the folder",
        )
    ids = {piece.piece: place for place, piece in enumerate(model.pieces)}
    ids |= {token: len(model.pieces) + place for place, token in enumerate(special)}
    scores = {p.piece: p.score for p in model.pieces if p.type == _NORMAL}
    pairs = [
        (-score, ids[left], ids[right], left, right)
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if (left := piece[:cut]) in scores and (right := piece[cut:]) in scores
    ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    return models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback, ignore_merges=symbols)


def _check(path: Path, made: Any, processor: Any) -> None:
    for text in SAMPLES:
        expected = processor.encode(text)
        found = made.encode(text, add_special_tokens=False).ids
        if found != expected or made.decode(expected) != processor.decode(expected):
            raise SourceCorruptError(
                f"{path} is not of the kind that the fast library splits texts with exactly as sentencepiece does: "
                f"{text!r} becomes {found}, not {expected}",
                expected="a BPE model whose normalization the tokenizers library has",
                mend="put a tokenizer.json with the same ids into the folder",
            )
