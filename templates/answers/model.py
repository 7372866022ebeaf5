"""Answers out of a reader's logits: a Triton Python-backend model that takes the best span over all windows of a row.

The rules are those of transformers' QuestionAnsweringPipeline (version 5.2, its last): in every window a softmax over
the tokens that may answer, the 12 best spans (the product of their start and end), each widened to whole words; equal
answers, but for upper and lower case, add up over windows; the highest score wins.

Every setting is a string in the config's ``parameters``:

- ``max_answer_len``: tokens of the longest answer (``15``).
- ``align_to_words``: answers begin and end with words (``true``) or with tokens.
- ``handle_impossible_answer``: ``true`` lets the empty answer win, with the lowest score of the first token over all
  windows.
- ``context``: which text of the pair the context is: ``second``; or ``first``, where the pipeline takes answers out of
  the question and special tokens too.
- ``cls_id``: the token id that may answer besides the context's tokens (in most models the first of a window, which
  then gets the score 0).

Inputs: the context BYTES [batch, 1], ``logits`` FP32 [batch, windows, tokens, 2] (start and end), and what the
tokenizer made of each row: ``input_ids``, ``attention_mask``, ``sequence_ids``, ``word_ids``, ``offsets``. Outputs
[batch, 1]: ANSWER BYTES, SCORE FP32, START and END INT32 in characters of the context. A row in which nothing may
answer gets the empty answer with the score 0.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

TOKENS = ("logits", "input_ids", "attention_mask", "sequence_ids", "word_ids", "offsets")
NOTHING = {"text": "", "score": 0.0, "start": 0, "end": 0}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        [self.context] = [tensor["name"] for tensor in config["input"] if tensor["data_type"] == "TYPE_STRING"]
        self.longest = int(parameters.get("max_answer_len", "15"))
        if self.longest < 1:
            raise ValueError(f"parameter 'max_answer_len' is '{self.longest}', expected 1 or more")
        self.align = _one_of(parameters, "align_to_words", ("true", "false")) == "true"
        self.impossible = _one_of(parameters, "handle_impossible_answer", ("false", "true")) == "true"
        self.context_first = _one_of(parameters, "context", ("second", "first")) == "first"
        self.cls_id = int(parameters["cls_id"]) if "cls_id" in parameters else None

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        arrays = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in TOKENS]
        contexts = pb_utils.get_input_tensor_by_name(request, self.context).as_numpy()
        answers = []
        try:
            contexts = [raw.decode("utf-8") for raw in contexts[:, 0]]
        except UnicodeDecodeError as error:
            return _refusal(f"input '{self.context}' is not UTF-8: {error}")
        for context, *row in zip(contexts, *arrays, strict=True):
            windows = [_real(dict(zip(TOKENS, window, strict=True))) for window in zip(*row, strict=True)]
            answers.append(self._best(context, [w for w in windows if len(w["input_ids"])]))
        tensors = [
            pb_utils.Tensor("ANSWER", np.array([[answer["text"].encode()] for answer in answers], dtype=object)),
            pb_utils.Tensor("SCORE", np.array([[answer["score"]] for answer in answers], dtype=np.float32)),
            pb_utils.Tensor("START", np.array([[answer["start"]] for answer in answers], dtype=np.int32)),
            pb_utils.Tensor("END", np.array([[answer["end"]] for answer in answers], dtype=np.int32)),
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _best(self, context, windows):
        """The answer of one row: the first of those with the highest score."""
        answers, nothing = {}, 1000000.0
        for window in windows:
            allowed = self._allowed(window)
            start, end = (_softmax(window["logits"][:, side], allowed) for side in (0, 1))
            nothing = min(nothing, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            for first, last, score in self._spans(start, end, allowed):
                begin, stop = self._characters(window, first, last)
                text = context[begin:stop]
                answer = answers.setdefault(
                    text.lower(), {"text": text, "score": 0.0, "start": int(begin), "end": int(stop)}
                )
                answer["score"] += float(score)
        found = list(answers.values())
        if self.impossible:
            found.append({**NOTHING, "score": nothing})
        return max(found, key=lambda answer: answer["score"], default=NOTHING)

    def _allowed(self, window):
        """Tokens that may begin or end an answer."""
        if self.context_first:
            return np.ones(len(window["input_ids"]), dtype=bool)
        allowed = window["sequence_ids"] == 1
        return allowed if self.cls_id is None else allowed | (window["input_ids"] == self.cls_id)

    def _spans(self, start, end, allowed):
        """The best spans of a window with their scores; more than one, since several may become the same words."""
        wanted = 12 if self.align else 1
        scores = np.tril(np.triu(np.outer(start, end)), self.longest - 1)
        flat = scores.ravel()
        if wanted == 1:
            order = np.array([np.argmax(flat)])
        elif len(flat) < wanted:
            order = np.argsort(-flat)
        else:
            best = np.argpartition(-flat, wanted)[:wanted]
            order = best[np.argsort(-flat[best])]
        firsts, lasts = np.unravel_index(order, scores.shape)
        return [(f, t, scores[f, t]) for f, t in zip(firsts, lasts, strict=True) if allowed[f] and allowed[t]]

    def _characters(self, window, first, last):
        """Begin and end in the context: of both tokens' words as far as this window has them, else of the tokens."""
        offsets = window["offsets"]
        if self.align:
            begins, ends = (_word(window, token, 0 if self.context_first else 1) for token in (first, last))
            if len(begins) and len(ends):
                return offsets[begins[0], 0], offsets[ends[-1], 1]
        return offsets[first, 0], offsets[last, 1]


def _real(window):
    """The window without its padding, wherever that stands."""
    real = window["attention_mask"].astype(bool)
    return {name: array[real] for name, array in window.items()}


def _softmax(logits, allowed):
    """Probabilities, the tokens that are not allowed as good as left out."""
    masked = np.where(allowed, logits, np.float32(-10000.0))
    scores = np.exp(masked - masked.max())
    return scores / scores.sum()


def _word(window, token, sequence):
    """The context's tokens that bear the word number of ``token``."""
    number = window["word_ids"][token]
    if number < 0 or window["sequence_ids"][token] < 0:
        return ()
    return np.nonzero((window["word_ids"] == number) & (window["sequence_ids"] == sequence))[0]


def _refusal(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def _one_of(parameters, key, choices):
    """The parameter's value; the first choice where it is absent."""
    value = parameters.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"parameter '{key}' is '{value}', expected one of: {', '.join(choices)}")
    return value
