"""Stop words, bad words and biased words as token ids, as they stand in the middle of a text.

A list of words is INT32 [2, L]: the ids of all words, one after the other, padded with 0; and where each ends, padded
with -1.
"""

import json

import numpy as np
from streamed_text import Detokenizer
from tokenizer_file import library, made


class Words:
    def __init__(self, folder):
        with open(folder / "tokenizer.json", encoding="utf-8") as handle:
            described = json.load(handle)
        for part in ("normalizer", "pre_tokenizer"):
            described[part] = _without_prefix_space(described.get(part))
        self.tokenizer = made(library(folder), json.dumps(described))
        self.detokenizer = Detokenizer(self.tokenizer, skip_special_tokens=False)
        self.known = {}

    def ids(self, word, what):
        """
        Raises:
            ValueError: the tokens do not spell the word.
        """
        if word not in self.known:
            ids = self.tokenizer.encode(word, add_special_tokens=False).ids
            told = self.detokenizer.continued(ids)
            if told != word:
                raise ValueError(f"{what} {word!r} cannot be written in tokens: they spell {told!r}")
            if len(self.known) > 10_000:
                self.known.clear()
            self.known[word] = ids
        return self.known[word]


def word_list(rows):
    """INT32 [rows, 2, L] of the token ids of every row's words; L is 0 where there is no word at all."""
    if not any(rows):
        return np.empty((len(rows), 2, 0), dtype=np.int32)
    length = max(sum(map(len, words)) for words in rows)
    made = np.zeros((len(rows), 2, length), dtype=np.int32)
    made[:, 1] = -1
    for row, words in enumerate(rows):
        flat = [token for word in words for token in word]
        made[row, 0, : len(flat)] = flat
        made[row, 1, : len(words)] = np.cumsum([len(word) for word in words])
    return made


def _without_prefix_space(step):
    """A normalizer or pre-tokenizer as it works behind the start of a text."""
    if step is None or step["type"] == "Prepend":
        return None
    if step["type"] == "Sequence":
        name = "normalizers" if "normalizers" in step else "pretokenizers"
        return {**step, name: [kept for one in step[name] if (kept := _without_prefix_space(one))]}
    if step["type"] == "Metaspace":
        step = {key: value for key, value in step.items() if key != "add_prefix_space"}
        return {**step, "prepend_scheme": "never"}
    return {**step, "add_prefix_space": False} if step["type"] == "ByteLevel" else step
