"""Text in, token ids out: a Triton Python-backend model around the fast `tokenizers` library.

Every setting is a string in the config's ``parameters``:

- ``tokenizer_file``: file in the version folder (``tokenizer.json``). Padding and truncation stored in it are replaced.
- ``max_length``: tokens kept of a text, special tokens included; absent: texts are not truncated.
- ``truncation_side``, ``padding_side``: ``left`` or ``right``.
- ``pad_id``, ``pad_type_id``: what fills ``input_ids`` and ``token_type_ids``.
- ``pad_to_multiple_of``: lengths are rounded up to a multiple of it (``1``), never above ``max_length``.
- ``pad_lengths``: ``8,16,32``: lengths are rounded up to the next of these; longer ones follow ``pad_to_multiple_of``.
- ``add_special_tokens``, ``split_special_tokens``: ``true`` or ``false``.
- ``prompt``: put in front of every text.

The input is BYTES of shape [batch, 1], one UTF-8 text per row. The outputs, any of ``input_ids``, ``attention_mask``
and ``token_type_ids`` as INT64 or INT32, have the shape [batch, tokens]. All texts of a call are encoded at once and
padded to one length of at least 1. A request whose text is not UTF-8 is refused; the others of its call are served.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

OUTPUTS = ("input_ids", "attention_mask", "token_type_ids")
DTYPES = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        version_folder = Path(args["model_repository"]) / args["model_version"]
        self.text = config["input"][0]["name"]
        self.outputs = {output["name"]: DTYPES[output["data_type"]] for output in config["output"]}
        unknown = sorted(set(self.outputs) - set(OUTPUTS))
        if unknown:
            raise ValueError(f"unknown outputs {unknown}; a tokenizer has {', '.join(OUTPUTS)}")
        self.max_length = int(parameters["max_length"]) if "max_length" in parameters else None
        self.pad_left = _one_of(parameters, "padding_side", ("right", "left")) == "left"
        self.pad_multiple = int(parameters.get("pad_to_multiple_of", "1"))
        self.pad_lengths = sorted(int(length) for length in parameters.get("pad_lengths", "").split(",") if length)
        self.fill = {
            "input_ids": int(parameters.get("pad_id", "0")),
            "attention_mask": 0,
            "token_type_ids": int(parameters.get("pad_type_id", "0")),
        }
        self.special = _one_of(parameters, "add_special_tokens", ("true", "false")) == "true"
        self.prompt = parameters.get("prompt", "")
        instances = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
        self.tokenizer = _tokenizer(version_folder, parameters, instances)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = _one_of(parameters, "split_special_tokens", ("false", "true")) == "true"
        if self.max_length is not None:
            side = _one_of(parameters, "truncation_side", ("right", "left"))
            self.tokenizer.enable_truncation(self.max_length, stride=0, strategy="longest_first", direction=side)

    def execute(self, requests):
        rows, texts = [], []
        for request in requests:
            try:
                decoded = self._decode(pb_utils.get_input_tensor_by_name(request, self.text).as_numpy())
            except ValueError as error:
                rows.append(str(error))
            else:
                rows.append(slice(len(texts), len(texts) + len(decoded)))
                texts.extend(decoded)
        arrays = self._encode(texts)
        return [_refusal(row) if isinstance(row, str) else _response(arrays, row) for row in rows]

    def _decode(self, array):
        if array.ndim != 2 or array.shape[1] != 1:
            raise ValueError(
                f"input '{self.text}' has shape {list(array.shape)}, expected [batch, 1]: one text in each row"
            )
        texts = []
        for index, raw in enumerate(array[:, 0]):
            try:
                texts.append(self.prompt + raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"input '{self.text}': text {index} is not UTF-8: {error.reason} at byte {error.start} "
                    f"(0x{raw[error.start]:02x})"
                ) from error
        return texts

    def _encode(self, texts):
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=self.special)
        lengths = [len(encoding) for encoding in encodings]
        width = self._width(max(lengths, default=0))
        arrays = {name: np.full((len(texts), width), self.fill[name], dtype) for name, dtype in self.outputs.items()}
        for row, (encoding, length) in enumerate(zip(encodings, lengths, strict=True)):
            span = slice(width - length, width) if self.pad_left else slice(0, length)
            for name, array in arrays.items():
                array[row, span] = _values(encoding, name)
        return arrays

    def _width(self, longest):
        """The common length of a call: at least 1, since an axis of size 0 is more than most models can take."""
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


def _values(encoding, name):
    if name == "attention_mask":
        return 1
    return encoding.ids if name == "input_ids" else encoding.type_ids


def _response(arrays, rows):
    tensors = [pb_utils.Tensor(name, array[rows]) for name, array in arrays.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _refusal(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
