"""The steps of each task's models that ``step_configs`` may name, and the config parameters that each of them reads."""

from __future__ import annotations

from collections.abc import Mapping

from repo_builder.errors import SpecError, nearest
from repo_builder.spec import ModelSpec

PARAMETERS: dict[str, tuple[str, ...]] = {
    "tokenizer": (
        *("layout", "tokenizer_file", "max_length", "truncation", "stride", "truncation_side", "padding_side"),
        *("pad_id", "pad_type_id", "pad_to_multiple_of", "pad_lengths", "add_special_tokens", "split_special_tokens"),
        *("prompt", "hypothesis_template"),
    ),
    "entities": ("labels", "aggregation_strategy", "ignore_labels", "unk_id", "tokenizer_file"),
    "answers": ("max_answer_len", "align_to_words", "handle_impossible_answer", "context", "cls_id"),
    "masks": ("top_k", "mask_token", "mask_id", "pad_id", "max_length", "clean_up_spaces", "tokenizer_file"),
    "generate": (
        *("encoder", "decoder", "max_positions", "do_sample", "temperature", "top_k", "top_p"),
        *("tokenizer_file", "decoding_file", "token_ids_file", "charsmap_file", "language_codes", "unk_token_id"),
        *("max_length_of_text", "truncation_side", "split_special_tokens", "pad_id", "strip_text"),
        *("decoder_start_token_id", "pad_token_id", "eos_token_id", "max_length", "min_length"),
        *("forced_bos_token_id", "forced_eos_token_id", "repetition_penalty", "no_repeat_ngram_size"),
        *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    ),
    "detections": ("labels", "scoring", "top_k", "threshold"),
    "image": (
        *("height", "width", "shortest_edge", "longest_edge", "size_divisor", "resample", "crop_height", "crop_width"),
        *("pad_height", "pad_width", "rescale_factor", "rescale_offset", "channel_order", "image_mean", "image_std"),
        *("layout", "max_pixels", "formats"),
    ),
}
"""What each Python model of ``templates/`` reads, or its task reads for it (``top_k`` of ``masks``)."""

_IMAGE = {"ensemble": "", "preprocess": "image"}
_TEXT = {"ensemble": "", "tokenizer": "tokenizer"}
STEPS: dict[str, Mapping[str, str]] = {
    "feature-extraction": _TEXT,
    "sentence-embedding": _TEXT,
    "sparse-embedding": _TEXT,
    "reranking": _TEXT,
    "text-classification": _TEXT,
    "zero-shot-classification": _TEXT,
    "token-classification": {**_TEXT, "postprocess": "entities"},
    "question-answering": {**_TEXT, "postprocess": "answers"},
    "fill-mask": {**_TEXT, "postprocess": "masks"},
    "image-classification": _IMAGE,
    "object-detection": {**_IMAGE, "postprocess": "detections"},
    "text2text-generation": {"generate": "generate", "encoder": "", "decoder": ""},
}
"""By task: the steps that ``step_configs`` is laid over, and the template of each; empty where Triton's code runs."""

_BATCHER = "TRITON_BATCH_STRATEGY_PATH"
_SERVER = ("EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS", _BATCHER)
"""What Triton itself reads of a Python model's parameters (python_backend, python_be.cc; core, backend_model.cc)."""


def check(model: ModelSpec, task: str) -> None:
    """Refuse ``step_configs`` of steps that the task does not have, and parameters that the step would never read.

    A batching library may read parameters of its own, in upper case.

    Raises:
        SpecError: names the nearest step or parameter.
    """
    steps = STEPS.get(task, {})
    for step, fields in model.step_configs.items() if steps else ():
        if step not in steps:
            engine = "" if "encoder" in steps else " (`config:` is the converted model's)"
            raise SpecError(
                f"step_configs: there is no step {step!r}{nearest(step, list(steps))}",
                expected="one of " + ", ".join(steps) + engine,
                mend="correct the name in the spec",
            )
        parameters = fields.get("parameters")
        if steps[step] and isinstance(parameters, Mapping):
            _check_parameters(step, parameters, PARAMETERS[steps[step]])


def _check_parameters(step: str, given: Mapping[str, object], own: tuple[str, ...]) -> None:
    for name in given:
        if name in own or name in _SERVER or (given[name] is None) or (_BATCHER in given and str(name).isupper()):
            continue
        raise SpecError(
            f"step_configs.{step}.parameters.{name} has no effect: the model reads no such parameter"
            + nearest(str(name), [*own, *_SERVER]),
            expected="one of " + ", ".join((*own, *_SERVER)),
            mend="correct the name in the spec, or leave it out",
        )
