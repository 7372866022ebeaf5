"""Output tensors of what vLLM generated so far."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class Answer:
    """Makes the responses to one question: each holds what is new since the one before it.

    Of several sequences (``n``) vLLM tells only those that went on; each response has an element for every sequence
    that began, in their order.

    Args:
        question: see ``question.Question``.
    """

    def __init__(self, question):
        self.question = question
        self.sent = {}
        self.latest = {}

    def response(self, output):
        """The response for vLLM's cumulative RequestOutput."""
        self.latest.update({one.index: one for one in output.outputs})
        sequences = [self.latest[index] for index in sorted(self.latest)]
        prompt = self.question.prompt if self.question.prepend else ""
        texts = [prompt + self._new("text", one, one.text) for one in sequences]
        tensors = [strings("text_output", texts)]
        makers = {
            "finish_reason": lambda: strings("finish_reason", [str(one.finish_reason) for one in sequences]),
            "cumulative_logprob": lambda: numbers(
                "cumulative_logprob", [one.cumulative_logprob for one in sequences], np.float32
            ),
            "logprobs": lambda: strings("logprobs", [self._logprobs(one) for one in sequences]),
            "num_input_tokens": lambda: numbers("num_input_tokens", [len(output.prompt_token_ids)], np.uint32),
            "num_output_tokens": lambda: numbers(
                "num_output_tokens", [len(self._new("tokens", one, one.token_ids)) for one in sequences], np.uint32
            ),
        }
        tensors += [make() for name, make in makers.items() if name in self.question.returns]
        return pb_utils.InferenceResponse(tensors)

    def _new(self, kind, sequence, whole):
        start = self.sent.get((kind, sequence.index), 0)
        self.sent[kind, sequence.index] = len(whole)
        return whole[start:]

    def _logprobs(self, sequence):
        """A JSON list with an object per token: candidates by token id; ``null`` where none were asked of vLLM."""
        if sequence.logprobs is None:
            return "null"
        positions = self._new("logprobs", sequence, sequence.logprobs)
        return json.dumps([{token: described(one) for token, one in position.items()} for position in positions])


def described(one):
    return {"logprob": one.logprob, "rank": one.rank, "decoded_token": one.decoded_token}


def strings(name, values):
    return pb_utils.Tensor(name, np.array([value.encode("utf-8") for value in values], dtype=np.object_))


def numbers(name, values, dtype):
    return pb_utils.Tensor(name, np.array(values, dtype=dtype))
