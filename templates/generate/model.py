"""Text in, generated text out: a Triton Python-backend model that calls an encoder and a decoder (BLS).

All requests of a call are generated together: the encoder runs once, the decoder once per token. Rows that are
finished leave the batch. A request that cannot be served is refused; the others of its call are served.

Every setting is a string in the config's ``parameters``:

- ``encoder``, ``decoder``: names of the models. The encoder gives ``cross``, the keys and values of the decoder's
  cross-attention, FP32 [batch, layers * 2, heads, tokens, width]. The decoder takes it together with ``past``, those
  of the tokens before (its first position is a dummy, so that no tensor is ever empty), and gives ``logits`` and
  ``present``, the next ``past``.
- what ``texts.Tokens`` names.
- ``max_positions``: most tokens of an answer, the start token included; absent: no limit.
- ``do_sample``, ``temperature``, ``top_k``, ``top_p``: defaults of the inputs of these names (``false``, 1, 50, 1).
- the fields of the generation config that ``search.Rules`` names, as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.dont_write_bytecode = True  # nothing is written into the repository, where it would count as a change
sys.path.insert(0, str(Path(__file__).parent))
from search import Rules, Sampler, Sequence  # noqa: E402
from texts import Tokens  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.encoder, self.decoder = parameters["encoder"], parameters["decoder"]
        self.inputs = {tensor["name"] for tensor in config["input"]}
        self.tokens = Tokens(Path(args["model_repository"]) / args["model_version"], parameters, _instances(config))
        self.fields = {name: json.loads(parameters[name]) for name in FIELDS if name in parameters}
        self.rules = Rules(self.fields)

    def execute(self, requests):
        jobs = [self._job(request) for request in requests]
        rows = [row for job in jobs if not isinstance(job, str) for row in job]
        try:
            self._generate(rows)
        except pb_utils.TritonModelException as error:
            return [_failed(job, invalid=True) if isinstance(job, str) else _failed(str(error)) for job in jobs]
        return [_failed(job, invalid=True) if isinstance(job, str) else self._response(job) for job in jobs]

    def _job(self, request):
        """(token ids, Sequence) for every row of a request, or what is wrong with it."""
        values = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                values[name] = tensor.as_numpy()
        rows = len(values["TEXT"])
        for name, array in values.items():
            if array.shape != (rows, 1):
                return f"input '{name}' has shape {list(array.shape)}, expected [{rows}, 1]: one value in each row"
        try:
            texts = [_decoded(raw, index) for index, raw in enumerate(values.pop("TEXT")[:, 0])]
            sequences = [
                self._sequence({name: array[row, 0].item() for name, array in values.items()}) for row in range(rows)
            ]
        except ValueError as error:
            return str(error)
        try:
            tokens = self.tokens.encode(texts)
        except Exception as error:  # noqa: BLE001 - the library raises nothing more special
            return f"input 'TEXT' cannot be encoded: {error}"
        return list(zip(tokens, sequences, strict=True))

    def _sequence(self, asked):
        """A row's sequence, by its own inputs.

        Raises:
            ValueError: a value is out of range.
        """
        limit = self.fields.get("max_positions")
        tokens = asked.get("MAX_NEW_TOKENS", self.rules.max_length - 1)
        if limit:
            _check("MAX_NEW_TOKENS", tokens, 1 <= tokens < limit, f"1 to {limit - 1}")
        _check("MAX_NEW_TOKENS", tokens, tokens >= 1, "1 or more")
        if not asked.get("DO_SAMPLE", self.fields.get("do_sample", False)):
            return Sequence(self.rules, tokens + 1)
        options = {name: asked.get(name.upper(), self.fields.get(name, SAMPLING[name])) for name in SAMPLING}
        seed = asked.get("SEED")
        _check("TEMPERATURE", options["temperature"], 0 < options["temperature"] < np.inf, "more than 0, and finite")
        _check("TOP_K", options["top_k"], options["top_k"] >= 0, "0 (all tokens) or more")
        _check("TOP_P", options["top_p"], 0 < options["top_p"] <= 1, "more than 0, at most 1")
        _check("SEED", seed, seed is None or seed >= 0, "0 or more")
        return Sequence(self.rules, tokens + 1, Sampler(**options, seed=seed))

    def _generate(self, rows):
        """Extend the sequence of every row until all are finished."""
        if not rows:
            return
        ids, mask = _padded([tokens for tokens, _ in rows], self.tokens.pad_id)
        mask = pb_utils.Tensor("attention_mask", mask)
        [cross] = _call(self.encoder, [pb_utils.Tensor("input_ids", ids), mask], ["cross"])
        batch, layers, heads, _, width = cross.as_numpy().shape
        past = np.zeros((batch, layers, heads, 1, width), dtype=np.float32)
        active = [sequence for _, sequence in rows]
        while True:
            last = np.array([[sequence.ids[-1]] for sequence in active], dtype=np.int64)
            inputs = [pb_utils.Tensor("decoder_input_ids", last), mask, cross, pb_utils.Tensor("past", past)]
            logits, present = _call(self.decoder, inputs, ["logits", "present"])
            for sequence, scores in zip(active, np.array(logits.as_numpy()), strict=True):
                sequence.extend(scores)
            kept = [row for row, sequence in enumerate(active) if not sequence.finished]
            if not kept:
                return
            past = present.as_numpy()
            if len(kept) < len(active):
                active, past = [active[row] for row in kept], past[kept]
                cross = pb_utils.Tensor("cross", cross.as_numpy()[kept])
                mask = pb_utils.Tensor("attention_mask", mask.as_numpy()[kept])

    def _response(self, job):
        for row, (_, sequence) in enumerate(job):
            if sequence.problem:
                return _failed(f"text {row}: {sequence.problem}")
        answers = [sequence.ids for _, sequence in job]
        ids, mask = _padded(answers, self.rules.pad)
        texts = np.array([[text.encode("utf-8")] for text in self.tokens.decode(answers)], dtype=object)
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor("GENERATED_TEXT", texts.reshape(len(answers), 1)),
                pb_utils.Tensor("OUTPUT_IDS", ids),
                pb_utils.Tensor("OUTPUT_MASK", mask),
            ]
        )


SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
FIELDS = (
    *("decoder_start_token_id", "pad_token_id", "eos_token_id", "max_length", "min_length", "max_positions"),
    *("forced_bos_token_id", "forced_eos_token_id", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "do_sample", *SAMPLING),
)


def _instances(config):
    return sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1


def _decoded(raw, index):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"input 'TEXT': text {index} is not UTF-8: {error.reason} at byte {error.start} (0x{raw[error.start]:02x})"
        ) from error


def _check(name, value, fits, expected):
    if not fits:
        raise ValueError(f"input '{name}' is {value}, expected {expected}")


def _padded(rows, fill):
    """INT64 [rows, longest] and its mask, 1 where a row has a token; at least one column."""
    width = max(1, *map(len, rows))
    ids = np.full((len(rows), width), fill, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _call(model, inputs, outputs):
    """The outputs of one request to another model of this server, in memory of the CPU.

    Raises:
        TritonModelException: the model refused or failed.
    """
    response = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=outputs,
        inputs=inputs,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        raise pb_utils.TritonModelException(f"{model}: {response.error().message()}")
    return [pb_utils.get_output_tensor_by_name(response, name) for name in outputs]


def _failed(message, *, invalid=False):
    code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
