"""A language model's tokenizer and chat template as files and parameters of the models around its engine."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repo_builder.client import chat_template
from repo_builder.errors import SourceCorruptError, SpecError
from repo_builder.llm.source import LanguageModel
from repo_builder.planned import Content
from repo_builder.tasks import llm_sentencepiece, vendored
from repo_builder.tasks.tokenizer_source import source_tokenizer, tokenizer_json

TEMPLATES = Path(__file__).parent.parent / "templates" / "llm"
_FILES = {
    "preprocessing": ("preprocessing/model.py", "tokenizer_file.py", "streamed_text.py", "word_lists.py"),
    "postprocessing": ("postprocessing/model.py", "tokenizer_file.py", "streamed_text.py"),
    "bls": (
        *("tensorrt_llm_bls/model.py", "tensorrt_llm_bls/answers.py", "tensorrt_llm_bls/engine_call.py"),
        *("tokenizer_file.py", "streamed_text.py"),
    ),
}
_PYTHON_ONLY = {"tokenizers": False, "jinja2": True, "markupsafe": True}
_SAMPLES = (
    "The quick brown fox: it's 3.14, \"isn't it\"?\n\n  def f(x):\n\treturn x ** 2\n",
    "晚上睡不着应该怎么办，𠮷野家",
    "👩‍👩‍👧‍👦 🇨🇳🇩🇪 👍🏽 ❤️ Größe naïve привет 안녕 ภาษา ½",
)


@dataclass(frozen=True)
class Part:
    """Files of a version folder, by name, and config parameters."""

    files: Mapping[str, Content]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class LlmTokens:
    """One folder's tokenizer.

    Attributes:
        preprocessing, postprocessing, bls: what each of these models needs (templates/llm).
        chat: parameters of every public model: ``chat_template``, ``chat_special_tokens`` (JSON) and ``bos_text``, as
            far as the folder has them.
        encode: the source's own library: ids of a text; ``add_special_tokens`` (True) as there.
        decode: the source's own library: text of ids, special tokens left out.
        notes: what was derived, not read from the folder.
    """

    preprocessing: Part
    postprocessing: Part
    bls: Part
    chat: Mapping[str, str]
    encode: Callable[..., list[int]]
    decode: Callable[[Sequence[int]], str]
    notes: tuple[str, ...] = ()

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What the chat template makes of messages.

        Raises:
            SpecError: the model has no chat template, or it refuses them.
        """
        mend = "give prompts in place of messages, or a model with a chat template"
        if "chat_template" not in self.chat:
            raise SpecError("the model has no chat template", expected="one for messages", mend=mend)
        special = json.loads(self.chat.get("chat_special_tokens", "{}"))
        try:
            return chat_template.render(self.chat["chat_template"], messages, special)
        except chat_template.ChatTemplateError as error:
            raise SpecError(str(error), mend=mend) from error


@dataclass(frozen=True)
class _Source:
    content: Content
    encode: Callable[..., list[int]]
    decode: Callable[[Sequence[int]], str]
    template: str
    parameters: Mapping[str, str]
    end_id: int | None
    notes: tuple[str, ...] = ()


def tokens(folder: Path, language: LanguageModel, *, trust_remote_code: bool = False) -> LlmTokens:
    """The tokens of a Hugging Face folder; none of its code is run, whatever ``trust_remote_code`` says.

    Raises:
        MissingDependencyError, SourceMissingError, SourceCorruptError, UnsafeSourceError: see
            :func:`~repo_builder.tasks.tokenizer_source.source_tokenizer`, also of a tokenizer that cannot be streamed.
        TargetError: see :func:`~repo_builder.tasks.vendored.library`.
    """
    chatglm = llm_sentencepiece.matches(folder)
    source = _chatglm(folder, language) if chatglm else _transformers(folder, language)
    text = source.content.decode() if isinstance(source.content, bytes) else source.content.read_text(encoding="utf-8")
    tokenizer = _module("tokenizer_file").made(_library(), text)
    if "split_special_tokens" in source.parameters:
        tokenizer.encode_special_tokens = source.parameters["split_special_tokens"] == "true"
    _check(folder, tokenizer, source)
    chat = {"bos_text": _bos_text(tokenizer)} if not chatglm else {}
    if source.template:
        chat["chat_template"] = source.template
        chat["chat_special_tokens"] = json.dumps(dict(language.special_tokens), ensure_ascii=False, sort_keys=True)
    chat = {key: value for key, value in chat.items() if value}
    ends = language.end_ids or (() if source.end_id is None else (source.end_id,))
    pad = language.pad_id if language.pad_id is not None else (ends[0] if ends else 0)
    preprocessing = {
        **chat,
        **source.parameters,
        "add_special_tokens": "true",
        "pad_id": str(pad),
        **({"end_id": str(ends[0])} if ends else {}),
        **({"further_end_ids": json.dumps(list(ends[1:]))} if ends[1:] else {}),
        **({"vocab_size": str(language.vocab_size)} if language.vocab_size else {}),
    }
    libraries = {name: vendored.library(name, python_only=only) for name, only in _PYTHON_ONLY.items()}
    return LlmTokens(
        preprocessing=_part("preprocessing", source, libraries, preprocessing),
        postprocessing=_part("postprocessing", source, libraries, {"skip_special_tokens": "true"}),
        bls=_part("bls", source, libraries, {"skip_special_tokens": "true"}),
        chat=chat,
        encode=source.encode,
        decode=source.decode,
        notes=source.notes,
    )


def _transformers(folder: Path, language: LanguageModel) -> _Source:
    found = source_tokenizer(folder)

    def encode(text: str, add_special_tokens: bool = True) -> list[int]:
        return list(found.encode(text, add_special_tokens=add_special_tokens))

    def decode(ids: Sequence[int]) -> str:
        return str(found.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    split = {"split_special_tokens": "true"} if found.split_special_tokens else {}
    content = tokenizer_json(folder, found)
    return _Source(content, encode, decode, language.chat_template, split, found.eos_token_id)


def _chatglm(folder: Path, language: LanguageModel) -> _Source:
    made = llm_sentencepiece.convert(folder)
    template = language.chat_template
    roles = made.parses_roles or bool(template)
    made.tokenizer.encode_special_tokens = not roles

    def encode(text: str, add_special_tokens: bool = True) -> list[int]:
        return list(made.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    parameters = {"split_special_tokens": json.dumps(not roles)}
    notes = ["tokenizer.json: made of tokenizer.model and what ChatGLM's own code does, checked against sentencepiece"]
    if not template:
        notes.append("the chat template: derived from what ChatGLM's own code writes in front of a question")
        parameters["chat_adds_special_tokens"] = "true"
    content = str(made.tokenizer.to_str()).encode()
    end = made.tokenizer.token_to_id("</s>")
    return _Source(
        content, encode, made.tokenizer.decode, template or made.chat_template, parameters, end, tuple(notes)
    )


def _bos_text(tokenizer: Any) -> str:
    """Of the tokens that the tokenizer puts in front of plain text; empty where their text is not read as them."""
    plain, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    starts = [place for place in range(len(whole)) if whole[place : place + len(plain)] == plain]
    front = whole[: starts[0]] if starts else []
    text = "".join(tokenizer.id_to_token(token) for token in front)
    return text if tokenizer.encode(text, add_special_tokens=False).ids == front else ""


def _check(folder: Path, tokenizer: Any, source: _Source) -> None:
    """Refuse a tokenizer that does another thing than its source, or whose text cannot be told as it comes."""
    detokenizer = _module("streamed_text").Detokenizer(tokenizer)
    for text in _SAMPLES:
        ids = source.encode(text)
        told, stream = source.decode(ids), detokenizer.stream()
        parts = [stream.push([token]) for token in ids] + [stream.finish()]
        if tokenizer.encode(text).ids != ids or "".join(parts) != told or detokenizer.text(ids) != told:
            raise SourceCorruptError(
                f"the tokenizer in {folder} does not stream: {text!r} becomes {''.join(parts)!r}, not {told!r}",
                expected="one whose text only grows with every token (byte-level, or pieces with byte fallback)",
                mend="serve the model with --engine vllm or llmapi, which bring their own tokenizers",
            )


def _part(role: str, source: _Source, libraries: Mapping[str, vendored.Library], own: Mapping[str, str]) -> Part:
    files: dict[str, Content] = {Path(file).name: TEMPLATES / file for file in _FILES[role]}
    files["tokenizer.json"] = source.content
    if role == "preprocessing":
        files["chat_template.py"] = Path(chat_template.__file__)
    parameters = dict(own)
    for name, library in libraries.items():
        if name == "tokenizers" or role == "preprocessing":
            files |= {f"vendor/{path}": file for path, file in library.files.items()}
            parameters |= {f"{name}_version": library.version, f"{name}_sha256": library.digest}
    return Part(dict(sorted(files.items())), dict(sorted(parameters.items())))


def _library() -> Any:
    import tokenizers

    return tokenizers


@cache
def _module(name: str) -> Any:
    """A file that travels with the models, as it runs there."""
    spec = importlib.util.spec_from_file_location(f"repo_builder_llm_{name}", TEMPLATES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
