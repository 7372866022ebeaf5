"""Requests and responses of ModelStreamInfer.

Source: server docs/user_guide/decoupled_models.md: with ``triton_enable_empty_final_response`` set, the last message
of a request carries ``triton_final_response``, and has no outputs where the model had already sent them all.
"""

from __future__ import annotations

from typing import Any

from repo_builder.client.messages import outputs_of
from repo_builder.client.transport import refused
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError


def request(infer: Any) -> Any:
    """The ModelInferRequest, marked so that its last response is told."""
    infer.parameters["triton_enable_empty_final_response"].bool_param = True
    return infer


def response(message: Any, model: str) -> tuple[dict[str, Array] | None, bool]:
    """The outputs (None where the message only ends the stream) and whether this is the last message.

    Raises:
        InferenceError: the model answered with an error.
    """
    if message.error_message:
        raise refused(message.error_message, model)
    inferred = message.infer_response
    final = inferred.parameters["triton_final_response"].bool_param
    return (None if final and not inferred.outputs else outputs_of(inferred)), final


def cut_off(model: str) -> InferenceError:
    """The error for a stream that the server closed before its last message."""
    return InferenceError(
        "the server closed the stream before the final response",
        expected="a message with triton_final_response",
        mend="look into the server's log: it may have been stopped or reloaded",
        model=model,
    )
