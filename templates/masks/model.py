"""Best tokens of every position in, fillings of the mask tokens out: a Triton Python-backend model for fill-mask.

Every setting is a string in the config's ``parameters``:

- ``mask_token``, ``mask_id``: the token that stands for what is missing.
- ``pad_id``: tokens of this id are left out of the sequences; absent: there is none.
- ``max_length``: where the tokenizer cuts, for messages.
- ``clean_up_spaces``: ``true`` takes the spaces before punctuation out of decoded text (``false``).
- ``tokenizer_file``: file in the version folder (``tokenizer.json``), whose decoder makes text of tokens.

Inputs: of the tokenizer ``input_ids`` and ``attention_mask`` [batch, tokens]; of the language model, for every
position, best first, ``tokens`` (integers), ``scores`` and ``logits`` (floats) [batch, tokens, k].

Outputs of shape [batch, masks, k], padded with empty strings and 0 to the row with most masks: ``TOKENS`` INT64,
``TOKEN_STRINGS`` (each token alone), ``SEQUENCES`` (the text with that token at that mask; special tokens are left out
where the text has one mask only), ``SCORES`` and ``LOGITS``. A request with a text without a mask token is refused.
"""

import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.mask_token, self.mask_id = parameters["mask_token"], int(parameters["mask_id"])
        self.pad_id = int(parameters["pad_id"]) if "pad_id" in parameters else None
        self.max_length = int(parameters["max_length"]) if "max_length" in parameters else None
        self.clean_up = parameters.get("clean_up_spaces", "false") == "true"
        self.tokenizer = _tokenizer(Path(args["model_repository"]) / args["model_version"], parameters)
        self.token_string = functools.lru_cache(maxsize=65536)(lambda token: self._decoded([token], False))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        names = ("input_ids", "attention_mask", "tokens", "scores", "logits")
        ids, real, *best = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
        masks = [np.flatnonzero((row == self.mask_id) & (mask == 1)) for row, mask in zip(ids, real, strict=True)]
        for row, places in enumerate(masks):
            if not places.size:
                return _refusal(f"input 'TEXT': text {row} has no mask token {self.mask_token!r}{self._cut(real[row])}")
        shape = (len(masks), max(map(len, masks)), best[0].shape[-1])
        tokens, scores, logits = (np.zeros(shape, dtype) for dtype in (np.int64, np.float32, np.float32))
        strings, sequences = np.full(shape, b"", dtype=object), np.full(shape, b"", dtype=object)
        for row, places in enumerate(masks):
            for array, given in zip((tokens, scores, logits), best, strict=True):
                array[row, : len(places)] = given[row, places]
            kept = ids[row][real[row] == 1]
            starts = np.cumsum(real[row] == 1)[places] - 1
            for number, place in enumerate(starts):
                for rank, token in enumerate(tokens[row, number].tolist()):
                    strings[row, number, rank] = self.token_string(token)
                    sequences[row, number, rank] = self._sequence(kept, place, token, alone=len(places) == 1)
        arrays = zip(
            ("TOKENS", "SCORES", "LOGITS", "TOKEN_STRINGS", "SEQUENCES"),
            (tokens, scores, logits, strings, sequences),
            strict=True,
        )
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in arrays])

    def _sequence(self, ids, place, token, alone):
        filled = ids.tolist()
        filled[place] = token
        return self._decoded([i for i in filled if i != self.pad_id], alone)

    def _decoded(self, ids, skip_special):
        text = self.tokenizer.decode(ids, skip_special_tokens=skip_special)
        for old, new in CLEAN_UP if self.clean_up else ():
            text = text.replace(old, new)
        return text.encode("utf-8")

    def _cut(self, mask):
        return f" among the {self.max_length} tokens that the model reads" if mask.sum() == self.max_length else ""


def _refusal(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def _tokenizer(folder, parameters):
    """The file's tokenizer, by the library that travels with it; nothing is written into the repository."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    vendor = folder / "vendor"
    if vendor.is_dir():
        sys.path.insert(0, str(vendor))
        sys.dont_write_bytecode = True
    from tokenizers import Tokenizer

    path = folder / parameters.get("tokenizer_file", "tokenizer.json")
    with open(path, encoding="utf-8") as handle:
        return Tokenizer.from_str(handle.read())
