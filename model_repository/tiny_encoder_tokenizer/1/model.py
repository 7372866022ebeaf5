"""Text in, token ids out: a Triton Python-backend model around the fast `tokenizers` library.

Every setting is a string in the config's ``parameters``:

- ``layout``: how the inputs (BYTES, UTF-8, in the order of the config) make sequences of tokens:
  ``text``: one input [batch, 1], a text a row;
  ``pairs``: one input [batch, 2], a pair a row;
  ``windows``: two inputs [batch, 1] (question, context), a pair a row, cut into overlapping windows; neither text is
  empty; with ``truncation`` ``only_first`` the context is the pair's first text;
  ``labels``: two inputs [batch, 1] and [batch, labels], a pair of the text and each label in ``hypothesis_template``.
- ``tokenizer_file``: file in the version folder (``tokenizer.json``). Padding and truncation stored in it are replaced.
- ``max_length``: tokens kept of a sequence, special tokens included; absent: nothing is cut.
- ``truncation``: ``longest_first``, ``only_first`` or ``only_second``: which text of a pair is cut.
- ``stride``: tokens that neighbouring windows share.
- ``truncation_side``, ``padding_side``: ``left`` or ``right``.
- ``pad_id``, ``pad_type_id``: what fills ``input_ids`` and ``token_type_ids``.
- ``pad_to_multiple_of``: lengths are rounded up to a multiple of it (``1``), never above ``max_length``.
- ``pad_lengths``: ``8,16,32``: lengths are rounded up to the next of these; longer ones follow ``pad_to_multiple_of``.
- ``add_special_tokens``, ``split_special_tokens``: ``true`` or ``false``.
- ``prompt``: put in front of every text (layout ``text``), or of the first of every pair (layout ``pairs``).

Outputs, any of ``OUTPUTS`` as INT64 or INT32, in lower or upper case (or both: an ensemble may not hand out what
another of its steps reads), have the shape [batch, tokens]; with windows or labels [batch, sequences,
tokens], where a row with fewer windows than another has some whose ``attention_mask`` is 0. ``offsets`` has one more
axis: start and end of the token in its text, in characters. ``sequence_ids`` (which text of a pair) and ``word_ids``
are -1 at special tokens and padding.

All texts of a call are encoded at once; each request is padded on its own, to a length of at least 1. A request whose
text is not UTF-8, or cannot be cut to ``max_length``, is refused; the others of its call are served.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

LAYOUTS = ("text", "pairs", "windows", "labels")
OUTPUTS = (
    "input_ids", "attention_mask", "token_type_ids", "special_tokens_mask", "offsets", "sequence_ids", "word_ids",
)  # fmt: skip
FROM_OFFSETS = {"offsets", "word_ids"}
DTYPES = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        version_folder = Path(args["model_repository"]) / args["model_version"]
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = {output["name"]: DTYPES[output["data_type"]] for output in config["output"]}
        unknown = sorted(name for name in self.outputs if name.lower() not in OUTPUTS)
        if unknown:
            raise ValueError(f"unknown outputs {unknown}; a tokenizer has {', '.join(OUTPUTS)}")
        self.layout = _one_of(parameters, "layout", LAYOUTS)
        self.template = parameters.get("hypothesis_template", "{}")
        self.max_length = int(parameters["max_length"]) if "max_length" in parameters else None
        self.pad_left = _one_of(parameters, "padding_side", ("right", "left")) == "left"
        self.pad_multiple = int(parameters.get("pad_to_multiple_of", "1"))
        self.pad_lengths = sorted(int(length) for length in parameters.get("pad_lengths", "").split(",") if length)
        self.fill = {
            "input_ids": int(parameters.get("pad_id", "0")),
            "token_type_ids": int(parameters.get("pad_type_id", "0")),
            "special_tokens_mask": 1,
            "sequence_ids": -1,
            "word_ids": -1,
        }
        self.special = _one_of(parameters, "add_special_tokens", ("true", "false")) == "true"
        self.prompt = parameters.get("prompt", "")
        instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
        self.tokenizer = _tokenizer(version_folder, parameters, instances)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = _one_of(parameters, "split_special_tokens", ("false", "true")) == "true"
        self.stride = int(parameters.get("stride", "0"))
        truncation = _one_of(parameters, "truncation", ("longest_first", "only_first", "only_second"))
        self.context_first = truncation == "only_first"
        if self.max_length is not None:
            self.tokenizer.enable_truncation(
                self.max_length,
                stride=self.stride,
                strategy=truncation,
                direction=_one_of(parameters, "truncation_side", ("right", "left")),
            )
        slow = FROM_OFFSETS.intersection(name.lower() for name in self.outputs)
        self.encode = self.tokenizer.encode_batch if slow else self.tokenizer.encode_batch_fast

    def execute(self, requests):
        asked = [self._asked(request) for request in requests]
        answers = iter(self._answers([rows for rows in asked if not isinstance(rows, str)]))
        return [_refusal(rows) if isinstance(rows, str) else next(answers) for rows in asked]

    def _asked(self, request):
        """For each row of a request its texts or pairs; or why it is refused."""
        try:
            texts = [self._texts(request, name) for name in self.inputs]
        except ValueError as error:
            return str(error)
        first = texts[0]
        if self.layout == "text":
            return [[self.prompt + text for text in row] for row in first]
        if self.layout == "pairs":
            return [[(self.prompt + left, right)] for left, right in first]
        if self.layout == "windows":
            return self._windowed(texts)
        return [
            [(text, self.template.format(label)) for label in labels] for (text,), labels in zip(*texts, strict=True)
        ]

    def _windowed(self, texts):
        for name, rows in zip(self.inputs, texts, strict=True):
            for row, (text,) in enumerate(rows):
                if not text:
                    return f"input '{name}': text {row} is empty, expected a question and a context"
        pairs = [(question, context) for (question,), (context,) in zip(*texts, strict=True)]
        return [[pair[::-1] if self.context_first else pair] for pair in pairs]

    def _texts(self, request, name):
        array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        width = None if self.layout == "labels" and name != self.inputs[0] else 2 if self.layout == "pairs" else 1
        if array.ndim != 2 or array.shape[1] != (width or max(1, array.shape[1])):
            each = {None: "one label or more", 1: "one text", 2: "two texts"}[width]
            raise ValueError(
                f"input '{name}' has shape {list(array.shape)}, expected [batch, {width or 'labels'}]: "
                f"{each} in each row"
            )
        return [[_decoded(raw, name, row) for raw in array[row]] for row in range(len(array))]

    def _answers(self, several):
        """The responses: all requests are encoded at once, or one by one where the library refuses any."""
        sequences = [sequence for rows in several for row in rows for sequence in row]
        try:
            encodings = iter(self.encode(sequences, add_special_tokens=self.special))
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if len(several) == 1:
                return [_refusal(self._why(error))]
            return [self._answers([rows])[0] for rows in several]
        return [self._response([[next(encodings) for _ in row] for row in rows]) for rows in several]

    def _why(self, error):
        """The library raises nothing special, and panics where windows cannot share as many tokens as they should."""
        if self.layout == "windows":
            return (
                f"'{self.inputs[0]}' is too long: beside it no window of {self.max_length} tokens holds more of "
                f"'{self.inputs[1]}' than the {self.stride} tokens that windows share; expected a shorter question"
            )
        return f"{' and '.join(map(repr, self.inputs))} cannot be encoded: {error}"

    def _response(self, rows):
        if self.layout == "windows":
            rows = [[encoding, *encoding.overflowing] for (encoding,) in rows]
        width = self._width(max((len(encoding) for row in rows for encoding in row), default=0))
        shape = (len(rows), width)
        if self.layout in ("windows", "labels"):
            shape = (len(rows), max(len(row) for row in rows), width)
        arrays = {
            name: np.full(shape + (2,) * (name.lower() == "offsets"), self.fill.get(name.lower(), 0), dtype)
            for name, dtype in self.outputs.items()
        }
        for number, row in enumerate(rows):
            for place, encoding in enumerate(row):
                at = (number, place) if len(shape) == 3 else number
                length = len(encoding)
                span = slice(width - length, width) if self.pad_left else slice(0, length)
                for name, array in arrays.items() if length else ():
                    array[at][span] = _values(encoding, name.lower())
        tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _width(self, longest):
        """The common length of a request: at least 1, since most models take no axis of size 0."""
        longest = max(longest, 1)
        for length in self.pad_lengths:
            if length >= longest:
                break
        else:
            length = -(-longest // self.pad_multiple) * self.pad_multiple
        return length if self.max_length is None else max(min(length, self.max_length), longest)


def _tokenizer(folder, parameters, instances):
    """The file's tokenizer, by the library that travels with it.

    Every instance is a process of its own: they share the cores, of which a batch has use for a few. Nothing is written
    into the repository, where a new file would count as a change of the model.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    threads = min(8, max(1, len(os.sched_getaffinity(0)) // instances))
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    vendor = folder / "vendor"
    if vendor.is_dir():
        sys.path.insert(0, str(vendor))
        sys.dont_write_bytecode = True
    from tokenizers import Tokenizer

    path = folder / parameters.get("tokenizer_file", "tokenizer.json")
    with open(path, encoding="utf-8") as handle:
        return Tokenizer.from_str(handle.read())


def _one_of(parameters, key, choices):
    """The parameter's value; the first choice where it is absent."""
    value = parameters.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"parameter '{key}' is '{value}', expected one of: {', '.join(choices)}")
    return value


def _decoded(raw, name, row):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"input '{name}': text {row} is not UTF-8: {error.reason} at byte {error.start} (0x{raw[error.start]:02x})"
        ) from error


def _values(encoding, name):
    if name == "attention_mask":
        return 1
    values = getattr(encoding, {"input_ids": "ids", "token_type_ids": "type_ids"}.get(name, name))
    return [-1 if value is None else value for value in values] if name in ("sequence_ids", "word_ids") else values


def _refusal(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
