"""Inputs of a request as answers to make; refusals in words."""

from __future__ import annotations

import time

import triton_python_backend_utils as pb_utils

from tensorrtllm_stand_in.engine import Row

_NOT_HERE = (
    *("encoder_input_features", "draft_input_ids", "draft_logits", "prompt_embedding_table", "lora_task_id"),
    *("lora_weights", "lora_config", "guided_decoding_guide", "guided_decoding_guide_type", "decoder_input_ids"),
)
_LOGITS = ("return_context_logits", "return_generation_logits")


class Asked:
    """One request on its way."""

    def __init__(self, request_id, sender, rows):
        self.id, self.sender, self.rows = request_id, sender, rows
        self.cancelled, self.checked = False, time.monotonic()


def stops(request):
    """Whether the request ends another one of the same id."""
    return bool(_value(request, "stop", 0, False))


def read(request, parameters, engine, *, decoupled):
    """The rows of a request.

    Raises:
        ValueError: what is missing, does not fit, or is not served by the stand-in.
    """
    for name in _NOT_HERE:
        if _array(request, name) is not None:
            raise ValueError(f"the stand-in of TensorRT-LLM does not serve {name}")
    ids, lengths = _array(request, "input_ids"), _array(request, "input_lengths")
    wanted = _array(request, "request_output_len")
    for name, array in (("input_ids", ids), ("input_lengths", lengths), ("request_output_len", wanted)):
        if array is None:
            raise ValueError(f"{name} is required")
    for name, array in (("input_lengths", lengths), ("request_output_len", wanted)):
        if array.size != ids.shape[0]:
            raise ValueError(f"{name} has {array.size} values for a batch of {ids.shape[0]}")
    if ids.shape[0] > 1 and not decoupled:
        raise ValueError("batch size larger than 1 needs decoupled mode")
    return [
        _row(request, parameters, engine, index, ids[index].reshape(-1), lengths, wanted, decoupled)
        for index in range(ids.shape[0])
    ]


def _row(request, parameters, engine, index, ids, lengths, wanted, decoupled):
    given = lambda name, default: _value(request, name, index, default)  # noqa: E731
    streaming = bool(given("streaming", False))
    if streaming and not decoupled:
        raise ValueError("Streaming is only supported if model is deployed using decoupled mode.")
    for name in _LOGITS:
        if given(name, False):
            raise ValueError(f"the stand-in of TensorRT-LLM does not serve {name}")
    for name in ("beam_width", "num_return_sequences"):
        if int(given(name, 1)) != 1:
            raise ValueError(f"the stand-in of TensorRT-LLM serves {name} 1 alone")
    length, limit = int(lengths.reshape(-1)[index]), int(wanted.reshape(-1)[index])
    if not 0 <= length <= ids.size:
        raise ValueError(f"input_lengths is {length}: input_ids has {ids.size} tokens")
    if limit < 1:
        raise ValueError(f"request_output_len is {limit}: expected at least 1")
    prompt = [int(one) for one in ids[:length]]
    if not prompt:
        raise ValueError("the prompt has no tokens")
    if max(prompt) >= engine.vocabulary or min(prompt) < 0:
        raise ValueError(f"input_ids hold a token outside of the vocabulary of {engine.vocabulary}")
    if len(prompt) + limit > engine.longest:
        raise ValueError(
            f"Prompt length ({len(prompt)}) and requested output length ({limit}) exceed max_seq_len ({engine.longest})"
        )
    own = parameters.get("exclude_input_in_output", "false").lower() in ("true", "1")
    bias = _array(request, "embedding_bias")
    end = given("end_id", None)
    options = {
        "streaming": streaming,
        "exclude_input_in_output": bool(given("exclude_input_in_output", own)),
        "return_log_probs": bool(given("return_log_probs", False)),
        "end_id": None if end is None or int(end) < 0 else int(end),
        "stop_words": words(_array(request, "stop_words_list"), index, "stop_words_list"),
        "bad_words": words(_array(request, "bad_words_list"), index, "bad_words_list"),
        "embedding_bias": bias[index].reshape(-1).tolist() if bias is not None and bias.size else None,
        "temperature": float(given("temperature", 0.0)),
        "top_k": int(given("runtime_top_k", 0)),
        "top_p": float(given("runtime_top_p", 0.0)),
        "seed": int(given("seed", given("random_seed", 0))),
        "min_tokens": int(given("min_tokens", given("min_length", 0))),
        "repetition_penalty": float(given("repetition_penalty", 1.0)),
        "presence_penalty": float(given("presence_penalty", 0.0)),
        "frequency_penalty": float(given("frequency_penalty", 0.0)),
    }
    return Row(prompt, limit, index, options)


def words(array, index, name):
    """Words of one row: [2, L], concatenated tokens and exclusive ends, padded with -1.

    Raises:
        ValueError: the ends do not grow, or lie beyond the tokens.
    """
    if array is None or array.size == 0:
        return []
    row = array[index]
    if row.ndim != 2 or row.shape[0] != 2:
        raise ValueError(f"{name} has the shape {list(array.shape)}: expected [batch, 2, length]")
    tokens, ends = row[0].tolist(), row[1].tolist()
    found, start = [], 0
    for place, end in enumerate(ends):
        if end == -1:
            if any(later != -1 for later in ends[place:]):
                raise ValueError(f"{name} has an offset behind its padding")
            break
        if end <= start or end > len(tokens):
            raise ValueError(f"{name} has the offset {end} after {start}, with {len(tokens)} tokens")
        found.append(tokens[start:end])
        start = end
    return found


def _array(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _value(request, name, index, default):
    array = _array(request, name)
    if array is None or array.size == 0:
        return default
    flat = array.reshape(-1)
    return flat[min(index, flat.size - 1)]
