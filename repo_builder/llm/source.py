"""LanguageModel: what the JSON files of a Hugging Face folder say of a causal language model; needs no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_builder.formats import source_file

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "additional_special_tokens")
_CHAT_TEMPLATE = "chat_template.jinja"
_POSITIONS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
_VOCABULARY = ("vocab_size", "padded_vocab_size")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model's folder.

    Attributes:
        architectures: of config.json (``LlamaForCausalLM``).
        max_positions: the longest sequence of tokens that the model takes; None where config.json has no limit.
        dtype: of the weights as config.json says: ``float16``, ``bfloat16``, ``float32``; empty where it does not.
        end_ids: tokens that end an answer, the main one first: those of generation_config.json, else of config.json.
        pad_id: what fills up; the first of ``end_ids`` where the folder has none.
        chat_template: Jinja source that makes a prompt of messages; empty where the folder has none.
        special_tokens: what the template may name: ``bos_token``, ``eos_token``, ...
        generation: generation_config.json.
    """

    folder: Path
    model_type: str
    architectures: tuple[str, ...]
    vocab_size: int
    max_positions: int | None
    dtype: str
    end_ids: tuple[int, ...]
    pad_id: int | None
    chat_template: str = ""
    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)


def read(folder: Path) -> LanguageModel:
    """What the folder says.

    Raises:
        SourceMissingError: no config.json.
        SourceCorruptError: a file is not the JSON object that it should be.
    """
    config = source_file.read_json(folder / "config.json")
    generation = _optional(folder / "generation_config.json")
    tokenizer = _optional(folder / "tokenizer_config.json")
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    end_ids = tuple(ends) if isinstance(ends, list) else (ends,) if isinstance(ends, int) else ()
    pad = generation.get("pad_token_id", config.get("pad_token_id"))
    return LanguageModel(
        folder=folder,
        model_type=str(config.get("model_type", "")),
        architectures=tuple(config.get("architectures") or ()),
        vocab_size=next((int(config[key]) for key in _VOCABULARY if config.get(key)), 0),
        max_positions=next((int(config[key]) for key in _POSITIONS if config.get(key)), None),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch."),
        end_ids=end_ids,
        pad_id=pad if isinstance(pad, int) else (end_ids[0] if end_ids else None),
        chat_template=_chat_template(folder, tokenizer),
        special_tokens=_special_tokens(folder, tokenizer),
        generation=generation,
    )


def _optional(path: Path) -> dict[str, Any]:
    return source_file.read_json(path) if path.is_file() else {}


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> str:
    """Of a file of its own (newer transformers), else of tokenizer_config.json; of several the one named default."""
    if (folder / _CHAT_TEMPLATE).is_file():
        return (folder / _CHAT_TEMPLATE).read_text(encoding="utf-8")
    found = tokenizer.get("chat_template") or ""
    if isinstance(found, list):
        named = {str(one.get("name")): str(one.get("template")) for one in found if isinstance(one, Mapping)}
        return named.get("default", "")
    return str(found)


def _special_tokens(folder: Path, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """``added_token`` entries are told by their content, as transformers gives them to a template."""
    given = {**_optional(folder / "special_tokens_map.json"), **{k: v for k, v in tokenizer.items() if v is not None}}
    return {name: _text(given[name]) for name in _SPECIAL if given.get(name)}


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return str(value.get("content", ""))
    return [_text(one) for one in value] if isinstance(value, list) else value
