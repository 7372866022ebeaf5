"""A request's input tensors, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass

import triton_python_backend_utils as pb_utils

from vllm_serving.signature import RETURNS


@dataclass(frozen=True)
class Question:
    """What a request asks for.

    Attributes:
        prompt: its text.
        stream: answers in parts.
        prepend: the prompt goes in front of the (only) answer.
        sampling: vLLM's SamplingParams.
        adapter: name of a LoRA adapter; empty for none.
        returns: the further outputs that are wanted, without ``return_``.
    """

    prompt: str
    stream: bool
    prepend: bool
    sampling: object
    adapter: str
    returns: frozenset[str]


def read(request, model):
    """The request as a Question.

    Raises:
        ValueError: it asks for what is not served, or its parameters are wrong.
    """
    for name, task in (("embedding_request", "embed"), ("image", "image")):
        if pb_utils.get_input_tensor_by_name(request, name) is not None:
            raise ValueError(f"Model {model} does not support '{task}' request")
    stream = bool(value(request, "stream", False))
    prepend = not value(request, "exclude_input_in_output", stream)
    if prepend and stream:
        raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
    given = value(request, "sampling_parameters", None)
    sampling, adapter = parameters(request.parameters() if given is None else text(given), whole=not stream)
    returns = frozenset(name.removeprefix("return_") for name in RETURNS if value(request, name, False))
    return Question(text(value(request, "text_input", b"")), stream, prepend, sampling, adapter, returns)


def value(request, name, default):
    """The first element of an input; ``default`` where the request has no such input."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return default
    elements = tensor.as_numpy().reshape(-1)
    if not elements.size:
        raise ValueError(f"input '{name}' is empty")
    return elements[0]


def text(raw):
    return raw.decode("utf-8") if isinstance(raw, bytes) else str(raw)


def parameters(serialized, *, whole):
    """vLLM's SamplingParams, and the name of the LoRA adapter, from a JSON object.

    Strings are taken for numbers and switches too, since a client may have no other type for them. With ``whole`` vLLM
    tells only the finished answer, with all its sequences.

    Raises:
        ValueError: not a JSON object, or vLLM knows no such parameter.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    try:
        given = json.loads(serialized or "{}")
    except ValueError as error:
        raise ValueError(f"sampling_parameters is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError("sampling_parameters must be a JSON object")
    adapter = str(given.pop("lora_name", None) or "")
    known = SamplingParams.__annotations__
    for name, one in given.items():
        if name == "structured_outputs":
            chosen = json.loads(one) if isinstance(one, str) else one
            given[name] = StructuredOutputsParams(**chosen)
        elif isinstance(one, str) and name in known:
            given[name] = typed(one, known[name])
    given["output_kind"] = RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.CUMULATIVE
    try:
        return SamplingParams(**given), adapter
    except TypeError as error:
        raise ValueError(f"sampling_parameters: {error}") from None


def typed(written, annotation):
    """The value that a string stands for, by the type of its field: ``float | None``, say."""
    kinds = {part.strip() for part in getattr(annotation, "__name__", str(annotation)).split("|")}
    kinds |= {part.strip() for part in str(annotation).split("|")}
    if "str" in kinds:
        return written
    if "bool" in kinds:
        return written.lower() in ("true", "1")
    return next((kind(written) for kind in (int, float) if kind.__name__ in kinds), written)
