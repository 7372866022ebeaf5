"""Texts to the encoder's ids, and the decoder's ids to text, by the `tokenizers` library that travels with the model.

Settings are strings in the config's ``parameters``:

- ``tokenizer_file``: file in the version folder (``tokenizer.json``); ``decoding_file``: the one that turns ids into
  text (the same). Padding and truncation stored in them are replaced.
- ``token_ids_file``: JSON list: the model's id of each id of the tokenizer; absent: the ids are the same.
- ``charsmap_file``: sentencepiece's normalization (see charsmap.py), applied before the tokenizer's own.
- ``language_codes``: JSON object: ``>>code<<`` at the start of a text -> id; other codes get ``unk_token_id``.
- ``max_length_of_text``: tokens kept of a text, special tokens included; ``truncation_side``, ``split_special_tokens``
  and ``pad_id`` as in the tokenizer model of other text tasks.
- ``strip_text``: ``true`` takes the white space off both ends of an answer.
"""

import json
import os
import sys

from charsmap import Charsmap


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
        self.strip = json.loads(parameters.get("strip_text", "false"))
        self.ids = None
        if "token_ids_file" in parameters:
            with open(folder / parameters["token_ids_file"], encoding="utf-8") as handle:
                self.ids = json.load(handle)
        self.codes = json.loads(parameters.get("language_codes", "null"))
        self.unknown = json.loads(parameters.get("unk_token_id", "0"))

    def encode(self, texts):
        codes, texts = zip(*(self._code(text) for text in texts), strict=True)
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
