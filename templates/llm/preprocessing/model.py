"""Prompts or messages in, token ids out: the first model of TensorRT-LLM's in-flight batching contract.

Inputs and outputs bear the contract's names. ``MESSAGES`` is an addition: a JSON list of {"role", "content"} in place
of an empty ``QUERY``; the model's chat template makes the prompt of it. A request that cannot be served is refused; the
others of its call are served.

Every setting is a string in the config's ``parameters``:

- ``add_special_tokens``: whether a QUERY gets the special tokens that the tokenizer puts in front of plain text
  (``true``); one that begins with ``bos_text`` has them already.
- ``chat_template``, ``chat_special_tokens`` (JSON): see chat_template.py. ``chat_adds_special_tokens``: whether what
  the template made still lacks the special tokens in front (``false``).
- ``split_special_tokens``: names of special tokens in a prompt are read as plain text (``false``).
- ``end_id``, ``pad_id``: where a request names none. ``further_end_ids`` (JSON list) become stop words beside the
  default ``end_id``.
- ``max_input_len``, ``max_seq_len``: most tokens of a prompt, and of prompt and answer; absent: no limit.
- ``vocab_size``: width of EMBEDDING_BIAS.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.dont_write_bytecode = True  # nothing is written into the repository, where it would count as a change
sys.path.insert(0, str(Path(__file__).parent))
import chat_template  # noqa: E402
import tokenizer_file  # noqa: E402
from word_lists import Words, word_list  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        given = tokenizer_file.parameters(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        self.inputs = {tensor["name"] for tensor in config["input"]}
        self.outputs = {tensor["name"] for tensor in config["output"]}
        self.tokenizer = tokenizer_file.load(folder)
        self.tokenizer.encode_special_tokens = tokenizer_file.flag(given, "split_special_tokens", False)
        self.words = Words(folder)
        self.template = given.get("chat_template", "")
        self.special_tokens = json.loads(given.get("chat_special_tokens", "{}"))
        self.bos_text = given.get("bos_text", "")
        self.adds = tokenizer_file.flag(given, "add_special_tokens", True)
        self.chat_adds = tokenizer_file.flag(given, "chat_adds_special_tokens", False)
        self.end_id, pad_id = (tokenizer_file.number(given, name) for name in ("end_id", "pad_id"))
        self.pad_id = 0 if pad_id is None else pad_id
        self.further = json.loads(given.get("further_end_ids", "[]"))
        self.longest = tokenizer_file.number(given, "max_input_len")
        self.most = tokenizer_file.number(given, "max_seq_len")
        self.vocabulary = tokenizer_file.number(given, "vocab_size") or self.tokenizer.get_vocab_size()

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        values = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                values[name] = tensor.as_numpy()
        try:
            made = self._made(values)
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        tensors = [pb_utils.Tensor(name, array) for name, array in made.items() if name in self.outputs]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _made(self, values):
        """The outputs of one request.

        Raises:
            ValueError: it cannot be served.
        """
        rows = len(values["QUERY"])
        for name, array in values.items():
            if array.ndim != 2 or len(array) != rows or (name not in LISTS and array.shape[1] != 1):
                expected = f"[{rows}, {'n' if name in LISTS else 1}]"
                raise ValueError(f"input '{name}' has shape {list(array.shape)}, expected {expected}")
        messages = values.get("MESSAGES", [[b""]] * rows)
        prompts = [self._ids(values["QUERY"][row, 0], messages[row][0], row) for row in range(rows)]
        lengths = [len(prompt) for prompt in prompts]
        for length, asked in zip(lengths, values["REQUEST_OUTPUT_LEN"][:, 0].tolist(), strict=True):
            self._check(length, asked)
        ends, pads = self._one(values, "END_ID", self.end_id), self._one(values, "PAD_ID", self.pad_id)
        ids = np.repeat(pads, max(lengths), axis=1)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        stops = self._words(values, "STOP_WORDS_DICT", rows, "the stop word")
        for row, end in enumerate(ends[:, 0].tolist()):
            if end == self.end_id:
                stops[row] += [[token] for token in self.further]
        made = {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": np.array(lengths, dtype=np.int32).reshape(rows, 1),
            "REQUEST_OUTPUT_LEN": values["REQUEST_OUTPUT_LEN"],
            "STOP_WORDS_IDS": word_list(stops),
            "BAD_WORDS_IDS": word_list(self._words(values, "BAD_WORDS_DICT", rows, "the bad word")),
            "EMBEDDING_BIAS": self._bias(values, rows),
            "OUT_END_ID": ends,
            "OUT_PAD_ID": pads,
        }
        if "PROMPT_TABLE_EXTRA_ID" in values:
            extra = np.where(ids >= self.vocabulary, values["PROMPT_TABLE_EXTRA_ID"], 0)
            made["OUT_PROMPT_TABLE_EXTRA_IDS"] = extra.astype(np.uint64)
        return made

    def _ids(self, query, messages, row):
        query, messages = _decoded(query, f"prompt {row}"), _decoded(messages, f"the messages of prompt {row}")
        if bool(query) == bool(messages):
            raise ValueError(
                "there are a prompt and messages, expected one of the two"
                if query
                else f"prompt {row} is empty, expected a text" + (" or messages" if "MESSAGES" in self.inputs else "")
            )
        if messages:
            if not self.template:
                raise ValueError("this model has no chat template, expected a prompt in place of messages")
            text = chat_template.render(self.template, chat_template.parse(messages), self.special_tokens)
            adds = self.chat_adds
        else:
            text, adds = query, self.adds and not (self.bos_text and query.startswith(self.bos_text))
        try:
            ids = self.tokenizer.encode(text, add_special_tokens=adds).ids
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"prompt {row} cannot be encoded: {error}") from error
        if not ids:
            raise ValueError(f"prompt {row} has no tokens, expected one or more")
        return ids

    def _check(self, length, asked):
        if asked < 1:
            raise ValueError(f"{asked} new tokens are asked for, expected 1 or more")
        if self.longest is not None and length > self.longest:
            raise ValueError(f"the prompt has {length} tokens, expected at most {self.longest} (max_input_len)")
        if self.most is not None and length + asked > self.most:
            raise ValueError(
                f"the prompt has {length} tokens and {asked} new ones are asked for, together {length + asked}, "
                f"expected at most {self.most} (max_seq_len)"
            )

    def _one(self, values, name, default):
        if name in values:
            return values[name]
        return np.full((len(values["QUERY"]), 1), -1 if default is None else default, dtype=np.int32)

    def _words(self, values, name, rows, what):
        """For every row the ids of its words; empty ones only fill the row up."""
        found = [[] for _ in range(rows)]
        for row, words in enumerate(values.get(name, ())):
            decoded = [_decoded(word, what) for word in words]
            found[row] = [self.words.ids(word, what) for word in decoded if word]
        return found

    def _bias(self, values, rows):
        words, weights = (values.get(name) for name in ("EMBEDDING_BIAS_WORDS", "EMBEDDING_BIAS_WEIGHTS"))
        if words is None and weights is None:
            return np.empty((rows, 0), dtype=np.float32)
        if words is None or weights is None or words.shape != weights.shape:
            shapes = [None if array is None else list(array.shape) for array in (words, weights)]
            raise ValueError(f"biased words have shape {shapes[0]}, their weights {shapes[1]}, expected the same")
        bias = np.zeros((rows, self.vocabulary), dtype=np.float32)
        for row in range(rows):
            for word, weight in zip(words[row], weights[row].tolist(), strict=True):
                for token in self.words.ids(_decoded(word, "the biased word"), "the biased word"):
                    bias[row, token] += weight
        return bias


LISTS = ("BAD_WORDS_DICT", "STOP_WORDS_DICT", "EMBEDDING_BIAS_WORDS", "EMBEDDING_BIAS_WEIGHTS")


def _decoded(raw, what):
    try:
        return raw.decode("utf-8") if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{what} is not UTF-8: {error.reason} at byte {error.start} (0x{raw[error.start]:02x})"
        ) from error
