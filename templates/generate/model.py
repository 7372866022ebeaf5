"""Text in, generated text out: a Triton Python-backend model that calls an encoder and a decoder (BLS).

All requests of a call are generated together: the encoder runs once, the decoder once per token. Rows that are
finished leave the batch. A request that cannot be served is refused; the others of its call are served.

Every setting is a string in the config's ``parameters``:

- ``encoder``, ``decoder``: names of the models. The encoder gives ``cross``, the keys and values of the decoder's
  cross-attention, FP32 [batch, layers * 2, heads, tokens, width]. The decoder takes it together with ``past``, those
  of the tokens before (its first position is a dummy, so that no tensor is ever empty), and gives ``logits`` and
  ``present``, the next ``past``.
- ``tokenizer_file``: file in the version folder (``tokenizer.json``); ``decoding_file``: the one that turns ids into
  text (the same). Padding and truncation stored in them are replaced.
- ``token_ids_file``: JSON list: the model's id of each id of the tokenizer; absent: the ids are the same.
- ``charsmap_file``: sentencepiece's normalization (see charsmap.py), applied before the tokenizer's own.
- ``language_codes``: JSON object: ``>>code<<`` at the start of a text -> id; other codes get ``unk_token_id``.
- ``max_length_of_text``: tokens kept of a text, special tokens included; ``truncation_side``, ``split_special_tokens``,
  ``prompt``, ``pad_id`` as in the tokenizer model of other text tasks.
- ``strip_text``: ``true`` takes the white space off both ends of an answer.
- ``max_positions``: most tokens of an answer, the start token included; absent: no limit.
- ``do_sample``, ``temperature``, ``top_k``, ``top_p``: defaults of the inputs of these names (``false``, 1, 50, 1).
- the fields of the generation config that ``search.Rules`` names, as JSON.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.dont_write_bytecode = True  # nothing is written into the repository, where it would count as a change
sys.path.insert(0, str(Path(__file__).parent))
from charsmap import Charsmap  # noqa: E402
from search import Rules, Sampler, Sequence  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.encoder, self.decoder = parameters["encoder"], parameters["decoder"]
        self.inputs = {tensor["name"] for tensor in config["input"]}
        self.tokens = Tokens(Path(args["model_repository"]) / args["model_version"], parameters, _instances(config))
        self.fields = {key: json.loads(value) for key, value in parameters.items() if key not in TEXT_PARAMETERS}
        self.rules = Rules(self.fields)

    def execute(self, requests):
        jobs = [self._job(request) for request in requests]
        rows = [row for job in jobs if not isinstance(job, str) for row in job]
        try:
            self._generate(rows)
        except pb_utils.TritonModelException as error:
            return [_failed(str(error)) for _ in requests]
        return [_failed(job, invalid=True) if isinstance(job, str) else self._response(job) for job in jobs]

    def _job(self, request):
        """(token ids, Sequence) for every row of a request, or what is wrong with it."""
        values = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                values[name] = tensor.as_numpy()
        for name, array in values.items():
            if array.ndim != 2 or array.shape[1] != 1:
                return f"input '{name}' has shape {list(array.shape)}, expected [batch, 1]: one value in each row"
        try:
            texts = [_decoded(raw, index) for index, raw in enumerate(values.pop("TEXT")[:, 0])]
            sequences = [
                self._sequence({name: array[row, 0].item() for name, array in values.items()})
                for row in range(len(texts))
            ]
        except ValueError as error:
            return str(error)
        return list(zip(self.tokens.encode(texts), sequences, strict=True))

    def _sequence(self, asked):
        """A row's sequence, by its own inputs.

        Raises:
            ValueError: a value is out of range.
        """
        limit = self.fields.get("max_positions")
        length = asked.get("MAX_NEW_TOKENS", self.rules.max_length - 1) + 1
        _check("MAX_NEW_TOKENS", length - 1, 1, limit - 1 if limit else None)
        if not asked.get("DO_SAMPLE", self.fields.get("do_sample", False)):
            return Sequence(self.rules, length)
        options = {name: asked.get(name.upper(), self.fields.get(name, SAMPLING[name])) for name in SAMPLING}
        _check("TOP_K", options["top_k"], 0)
        _check("SEED", asked.get("SEED", 0), 0)
        for name, most in (("TEMPERATURE", None), ("TOP_P", 1)):
            _check(name, options[name.lower()], 1e-6, most)
        return Sequence(self.rules, length, Sampler(**options, seed=asked.get("SEED")))

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
TEXT_PARAMETERS = (
    *("encoder", "decoder", "tokenizer_file", "decoding_file", "token_ids_file", "truncation_side", "prompt"),
    *("charsmap_file", "tokenizers_version", "tokenizers_sha256"),
)
"""Parameters that are plain text; the others are JSON."""


class Tokens:
    """Texts to the encoder's ids, and the decoder's ids to text, by the library that travels with the model."""

    def __init__(self, folder, parameters, instances):
        tokenizers = _library(folder, instances)
        file = parameters.get("tokenizer_file", "tokenizer.json")
        self.source = _tokenizer(tokenizers, folder / file)
        self.target = _tokenizer(tokenizers, folder / parameters.get("decoding_file", file))
        if "charsmap_file" in parameters:
            charsmap = tokenizers.normalizers.Normalizer.custom(Charsmap(folder / parameters["charsmap_file"]))
            self.source.normalizer = tokenizers.normalizers.Sequence([charsmap, self.source.normalizer])
        self.source.encode_special_tokens = json.loads(parameters.get("split_special_tokens", "false"))
        self.longest = json.loads(parameters.get("max_length_of_text", "null"))
        if self.longest is not None:
            side = parameters.get("truncation_side", "right")
            self.source.enable_truncation(self.longest, strategy="longest_first", direction=side)
        self.pad_id = json.loads(parameters.get("pad_id", "0"))
        self.prompt = parameters.get("prompt", "")
        self.strip = json.loads(parameters.get("strip_text", "false"))
        self.ids = None
        if "token_ids_file" in parameters:
            with open(folder / parameters["token_ids_file"], encoding="utf-8") as handle:
                self.ids = json.load(handle)
        self.codes = json.loads(parameters.get("language_codes", "null"))
        self.unknown = json.loads(parameters.get("unk_token_id", "0"))

    def encode(self, texts):
        codes, texts = zip(*(self._code(self.prompt + text) for text in texts), strict=True)
        rows = [encoding.ids for encoding in self.source.encode_batch_fast(list(texts))]
        if self.ids is not None:
            rows = [[self.ids[token] for token in row] for row in rows]
        return [self._with_code(code, row) for code, row in zip(codes, rows, strict=True)]

    def decode(self, rows):
        texts = self.target.decode_batch(rows, skip_special_tokens=True)
        return [text.strip() for text in texts] if self.strip else texts

    def _code(self, text):
        """The id of the language code that the text starts with, if it does, and the text after it."""
        end = text.find("<<")
        if self.codes is None or end < 0 or not text.startswith(">>"):
            return None, text
        return self.codes.get(text[: end + 2], self.unknown), text[end + 2 :]

    def _with_code(self, code, row):
        """The code comes first; of a text that is too long with it, the last token goes, not the special one."""
        if code is None:
            return row
        row = [code, *row]
        return row if self.longest is None or len(row) <= self.longest else [*row[: self.longest - 1], row[-1]]


def _library(folder, instances):
    """The `tokenizers` package. Every instance is a process of its own: they share the cores."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    threads = min(8, max(1, len(os.sched_getaffinity(0)) // instances))
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    vendor = folder / "vendor"
    if vendor.is_dir():
        sys.path.insert(0, str(vendor))
    import tokenizers

    return tokenizers


def _tokenizer(tokenizers, path):
    with open(path, encoding="utf-8") as handle:
        found = tokenizers.Tokenizer.from_str(handle.read())
    found.no_padding()
    found.no_truncation()
    return found


def _instances(config):
    return sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1


def _decoded(raw, index):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"input 'TEXT': text {index} is not UTF-8: {error.reason} at byte {error.start} (0x{raw[error.start]:02x})"
        ) from error


def _check(name, value, least, most=None):
    if not value >= least or (most is not None and value > most):
        above = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"input '{name}' is {value}, expected {above}")


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
