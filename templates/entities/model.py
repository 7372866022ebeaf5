"""Scores of tokens in, entities out: a Triton Python-backend model behind a token classifier.

Every setting is a string in the config's ``parameters``:

- ``labels``: JSON list of the classifier's labels, in the order of the last axis of ``scores``.
- ``aggregation_strategy``: how tokens become entities, as in transformers' TokenClassificationPipeline:
  ``none``: every token is one;
  ``simple``: neighbours of one tag are joined, a ``B-`` begins anew;
  ``first``, ``average``, ``max``: the tokens of a word agree first, on the label of the first token, of the mean of
  their scores, or of the token that is surest; then neighbours are joined.
- ``ignore_labels``: JSON list; entities of these labels are left out (``["O"]``).
- ``unk_id``: the id of the unknown token, which is shown as the text that it stands for; absent: there is none.
- ``tokenizer_file``: file in the version folder (``tokenizer.json``): tokens become words by its decoder.

Inputs: ``TEXT`` BYTES [batch, 1]; of the tokenizer ``input_ids`` and ``special_tokens_mask`` [batch, tokens] and
``offsets`` [batch, tokens, 2]; of the classifier ``scores`` FP32 [batch, tokens, labels], which sum to 1.

Outputs of shape [batch, entities], padded with empty strings and 0 to the longest row of the request, at least 1:
``ENTITIES`` (labels), ``WORDS``, ``SCORES``, and ``STARTS`` and ``ENDS`` in characters of the text.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

STRATEGIES = ("simple", "none", "first", "average", "max")


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.strategy = _one_of(parameters, "aggregation_strategy", STRATEGIES)
        self.labels = json.loads(parameters["labels"])
        self.ignored = set(json.loads(parameters.get("ignore_labels", '["O"]')))
        self.tags = [_tag(label) for label in self.labels]
        self.groups = [label.split("-", 1)[-1] for label in self.labels]
        self.unk_id = int(parameters["unk_id"]) if "unk_id" in parameters else None
        self.tokenizer = _tokenizer(Path(args["model_repository"]) / args["model_version"], parameters)
        self.marks_subwords = bool(getattr(self.tokenizer.model, "continuing_subword_prefix", None))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        names = ("TEXT", "input_ids", "special_tokens_mask", "offsets", "scores")
        texts, *arrays = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
        try:
            texts = [raw.decode("utf-8") for raw in texts[:, 0]]
        except UnicodeDecodeError as error:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(f"input 'TEXT' is not UTF-8: {error}", pb_utils.TritonError.INVALID_ARG)
            )
        return _response([self._entities(text, *row) for text, *row in zip(texts, *arrays, strict=True)])

    def _entities(self, text, ids, special, offsets, scores):
        """(label, word, score, start, end) of each entity of one text."""
        places = np.flatnonzero(special == 0)
        ids, spans, scores = ids[places].tolist(), offsets[places].tolist(), scores[places]
        if self.strategy in ("none", "simple"):
            best = scores.argmax(axis=-1)
            found = zip(([i] for i in range(len(ids))), best.tolist(), scores.max(axis=-1, initial=0), strict=True)
        else:
            found = [(word, *self._agreed(scores[word])) for word in self._words(text, ids, spans)]
        if self.strategy == "none":
            return [
                (self.labels[label], self._surface(text, ids[i], spans[i]), score, *spans[i])
                for (i,), label, score in found
                if self.labels[label] not in self.ignored
            ]
        return [
            (self.groups[group[0][1]], self._joined(text, ids, spans, group), _mean(group), *_span(spans, group))
            for group in self._grouped(found)
            if self.groups[group[0][1]] not in self.ignored
        ]

    def _words(self, text, ids, spans):
        """The places of the tokens of each word."""
        words = []
        for i, (token, span) in enumerate(zip(ids, spans, strict=True)):
            if words and self._continues(text, token, span):
                words[-1].append(i)
            else:
                words.append([i])
        return words

    def _continues(self, text, token, span):
        """Whether the token belongs to the word before it.

        A mark of such tokens (``##``) makes them longer than their text. Without one only a space parts words.
        """
        if token == self.unk_id:
            return False
        start, end = span
        if self.marks_subwords:
            return len(self.tokenizer.id_to_token(token)) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    def _agreed(self, scores):
        """The one label of a word and its score, from the scores of its tokens."""
        if self.strategy == "first":
            row = scores[0]
        elif self.strategy == "max":
            row = scores[scores.max(axis=-1).argmax()]
        else:
            row = np.nanmean(scores, axis=0)
        label = int(row.argmax())
        return label, row[label]

    def _grouped(self, found):
        groups = []
        last = None
        for one in found:
            begins, tag = self.tags[one[1]]
            if groups and tag == last and not begins:
                groups[-1].append(one)
            else:
                groups.append([one])
            last = tag
        return groups

    def _joined(self, text, ids, spans, group):
        """The group's text by the tokenizer's decoder; where words agreed first, each of them was decoded before."""
        words = [[self._surface(text, ids[i], spans[i]) for i in places] for places, _, _ in group]
        if self.strategy == "simple":
            return self._decoded([token for (token,) in words])
        return self._decoded([self._decoded(tokens) for tokens in words])

    def _surface(self, text, token, span):
        return text[span[0] : span[1]] if token == self.unk_id else self.tokenizer.id_to_token(token)

    def _decoded(self, tokens):
        decoder = self.tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)


def _tag(label):
    """Whether the label begins an entity, and what it is without ``B-`` or ``I-``."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _mean(group):
    return np.nanmean([score for _, _, score in group])


def _span(spans, group):
    return spans[group[0][0][0]][0], spans[group[-1][0][-1]][1]


def _response(rows):
    shape = (len(rows), max(1, *map(len, rows)))
    arrays = {
        "ENTITIES": np.full(shape, b"", dtype=object),
        "WORDS": np.full(shape, b"", dtype=object),
        "SCORES": np.zeros(shape, np.float32),
        "STARTS": np.zeros(shape, np.int32),
        "ENDS": np.zeros(shape, np.int32),
    }
    for number, row in enumerate(rows):
        for place, values in enumerate(row):
            for array, value in zip(arrays.values(), values, strict=True):
                array[number, place] = value.encode("utf-8") if isinstance(value, str) else value
    tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
    return pb_utils.InferenceResponse(output_tensors=tensors)


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


def _one_of(parameters, key, choices):
    """The parameter's value; the first choice where it is absent."""
    value = parameters.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"parameter '{key}' is '{value}', expected one of: {', '.join(choices)}")
    return value
