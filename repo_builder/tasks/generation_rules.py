"""A folder's generation config as the config parameters of the generating model; what it cannot serve is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, SpecError, first_line

DEFAULT_NEW_TOKENS = 20
"""What `generate()` makes where nothing limits it (GenerationConfig._get_default_generation_params)."""
LIMIT_WITHOUT_POSITIONS = 1025
"""Most tokens of an answer, the start token included, of a model that knows no limit (T5): one request holds its whole
batch until it is finished."""

_SERVED = ("forced_bos_token_id", "no_repeat_ngram_size", "repetition_penalty")
_LISTS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p")
_REFUSED = (
    *("encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "exponential_decay_length_penalty"),
    *("guidance_scale", "max_time", "sequence_bias", "stop_strings", "watermarking_config", "constraints"),
    *("force_words_ids", "penalty_alpha", "dola_layers", "prompt_lookup_num_tokens"),
    *("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
)
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "guidance_scale": (1,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
}


@dataclass(frozen=True)
class GenerationRules:
    """What one folder's `generate()` does in greedy search.

    Attributes:
        parameters: config parameters of ``templates/generate/model.py``, JSON by name.
        max_length: tokens of an answer by default, the start token included.
        max_positions: most tokens of an answer, the start token included; None where the model has no limit (its
            parameter is then ``LIMIT_WITHOUT_POSITIONS``, or ``max_length`` where that is more).
        not_served: in words, what the folder asks for beyond greedy search; empty where it asks for nothing.
    """

    parameters: Mapping[str, str]
    max_length: int
    max_positions: int | None
    not_served: str


def rules(folder: Path, *, trust_remote_code: bool = False) -> GenerationRules:
    """The rules of a Hugging Face folder of an encoder-decoder model, from generation_config.json or config.json.

    Args:
        trust_remote_code: the folder's own code may run, where its config is of a class of its own.

    Raises:
        SourceCorruptError: the files do not load, or name no token to start with.
        SpecError: a field changes answers in a way that the generating model does not know.
    """
    found, positions = _configs(folder, trust_remote_code)
    _refuse(found, folder)
    start = _first(found.decoder_start_token_id, found.bos_token_id)
    if not isinstance(start, int):
        raise SourceCorruptError(
            f"the generation config of {folder} names no single token to start with (decoder_start_token_id {start})",
            expected="decoder_start_token_id or bos_token_id: one id",
            mend="name it in generation_config.json",
        )
    eos = _list(found.eos_token_id)
    longest = _max_length(found, positions)
    fields: dict[str, Any] = {
        "decoder_start_token_id": start,
        "pad_token_id": _first(found.pad_token_id, *eos, 0),
        "eos_token_id": eos,
        "max_length": longest,
        "min_length": _min_length(found),
        "max_positions": positions or max(LIMIT_WITHOUT_POSITIONS, longest),
        "bad_words_ids": [word for word in found.bad_words_ids or () if word not in [[token] for token in eos]],
        **{name: _list(getattr(found, name, None)) for name in _LISTS},
        **{name: getattr(found, name, None) for name in (*_SERVED, *_SAMPLING)},
    }
    parameters = {name: json.dumps(value) for name, value in fields.items() if value not in (None, [])}
    beams = found.num_beams or 1
    return GenerationRules(
        parameters, longest, positions, f"num_beams {beams} of the folder is not served" if beams > 1 else ""
    )


def _configs(folder: Path, trust: bool) -> tuple[Any, int | None]:
    """The GenerationConfig that ``from_pretrained`` gives the model, and the decoder's positions."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        if (folder / "generation_config.json").is_file():
            found = GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            found = GenerationConfig.from_pretrained(
                folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
            )
    except (OSError, ValueError, TypeError) as error:
        raise SourceCorruptError(
            f"the generation config of {folder} does not load: {first_line(error)}",
            expected="a generation_config.json that transformers' GenerationConfig takes",
            mend="save the model again with save_pretrained",
        ) from error
    positions = getattr(config, "max_position_embeddings", None)
    return found, positions if isinstance(positions, int) and positions > 1 else None


def _refuse(found: Any, folder: Path) -> None:
    asked = {name: getattr(found, name, None) for name in _REFUSED}
    bad = {n: v for n, v in asked.items() if v not in (None, [], False, *_WITHOUT_EFFECT.get(n, ()))}
    if bad:
        name, value = next(iter(bad.items()))
        raise SpecError(
            f"the generation config of {folder} asks for {name} {value}, which the served model does not know",
            expected="greedy search or sampling with " + ", ".join((*_SERVED, *_LISTS, *_SAMPLING, "bad_words_ids")),
            mend=f"take {name} out of generation_config.json; `generate()` then answers without it as well",
        )


def _max_length(found: Any, positions: int | None) -> int:
    """As ``_prepare_generated_length`` of transformers: max_new_tokens, else max_length, else 20 new tokens."""
    from transformers import GenerationConfig

    if found.max_new_tokens is not None:
        return int(found.max_new_tokens) + 1
    if found.max_length not in (None, GenerationConfig().max_length):
        return int(found.max_length)
    return min(DEFAULT_NEW_TOKENS + 1, positions or DEFAULT_NEW_TOKENS + 1)


def _min_length(found: Any) -> int | None:
    if found.min_new_tokens is not None:
        return int(found.min_new_tokens) + 1
    return found.min_length or None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _list(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(token) for token in value] if isinstance(value, (list, tuple)) else [int(value)]
