"""The next token of a sequence: what `generate()` of the transformers library does to scores, in numpy.

``Rules`` are the fields of a model's generation config, under their names; see transformers' GenerationConfig.
``Sequence`` is one row with its own limits and, where it samples, its own random numbers, so that no row depends on
the others of its batch. Scores are FP32 [vocabulary]; a token that must not come gets minus infinity.
"""

import numpy as np

OFF = np.float32(-np.inf)


class Rules:
    def __init__(self, fields):
        """``fields``: by name; absent ones are off. ``max_length`` and ``min_length`` count the start token."""
        self.start = fields["decoder_start_token_id"]
        self.pad = fields["pad_token_id"]
        self.eos = np.array(fields.get("eos_token_id", []), dtype=np.int64)
        self.max_length = fields["max_length"]
        self.min_length = fields.get("min_length", 0)
        self.forced_bos = fields.get("forced_bos_token_id")
        self.forced_eos = np.array(fields.get("forced_eos_token_id", []), dtype=np.int64)
        self.repetition_penalty = np.float32(fields.get("repetition_penalty", 1))
        self.ngram = fields.get("no_repeat_ngram_size", 0)
        self.bad_words = [tuple(word) for word in fields.get("bad_words_ids", [])]
        self.suppressed = np.array(fields.get("suppress_tokens", []), dtype=np.int64)
        self.suppressed_at_begin = np.array(fields.get("begin_suppress_tokens", []), dtype=np.int64)

    def apply(self, scores, ids, max_length):
        """The scores of the token after ``ids`` (the start token included), changed in place.

        The order is that of transformers' ``_get_logits_processor``.
        """
        length = len(ids)
        if self.repetition_penalty != 1:
            seen = np.unique(ids)
            scores[seen] = np.where(
                scores[seen] < 0, scores[seen] * self.repetition_penalty, scores[seen] / self.repetition_penalty
            )
        if self.ngram:
            scores[_after_ngrams(ids, self.ngram)] = OFF
        for word in self.bad_words:
            if len(word) <= length + 1 and tuple(ids[length - len(word) + 1 :]) == word[:-1]:
                scores[word[-1]] = OFF
        if length < self.min_length:
            scores[self.eos] = OFF
        if length == 1 and self.forced_bos is not None:
            _force(scores, self.forced_bos)
        if length == max_length - 1 and self.forced_eos.size:
            _force(scores, self.forced_eos)
        scores[self.suppressed] = OFF
        if length == (1 if self.forced_bos is None else 2):
            scores[self.suppressed_at_begin] = OFF
        return scores


class Sequence:
    def __init__(self, rules, max_length, sampler=None):
        """``sampler``: None takes the best token (greedy)."""
        self.rules, self.max_length, self.sampler = rules, max_length, sampler
        self.ids = [rules.start]
        self.finished = False
        self.problem = ""

    def extend(self, scores):
        """Append the next token, and tell whether there is more to come; scores of which none is best end it."""
        if not np.isfinite(np.max(scores)):
            self.finished = True
            self.problem = f"the decoder's scores of token {len(self.ids)} are not finite (NaN or infinity)"
            return
        scores = self.rules.apply(scores, self.ids, self.max_length)
        token = int(np.argmax(scores)) if self.sampler is None else self.sampler.draw(scores)
        self.ids.append(token)
        self.finished = len(self.ids) >= self.max_length or token in self.rules.eos


class Sampler:
    def __init__(self, temperature=1.0, top_k=0, top_p=1.0, seed=None):
        """``top_k`` 0 and ``top_p`` 1 keep every token; the same ``seed`` draws the same numbers."""
        self.temperature, self.top_k, self.top_p = np.float32(temperature), top_k, top_p
        self.random = np.random.Generator(np.random.PCG64(seed))

    def draw(self, scores):
        tokens, shares = self.kept(scores)
        reached = np.cumsum(shares)
        place = np.searchsorted(reached, self.random.random() * reached[-1], side="right")
        return int(tokens[min(place, len(tokens) - 1)])

    def kept(self, scores):
        """The tokens that ``top_k`` and ``top_p`` leave, in their order, and the probability of each, FP64."""
        # Shifted, no temperature makes a sum of infinities of them.
        scores = (scores.astype(np.float64) - np.max(scores)) / self.temperature
        tokens = np.arange(len(scores))
        if 0 < self.top_k < len(scores):
            tokens = np.flatnonzero(scores >= np.partition(scores, -self.top_k)[-self.top_k])
            scores = scores[tokens]
        if self.top_p < 1:
            order = np.argsort(scores, kind="stable")
            best = np.cumsum(_softmax(scores[order])) > 1 - self.top_p
            best[-1] = True
            chosen = np.sort(order[best])
            tokens, scores = tokens[chosen], scores[chosen]
        return tokens, _softmax(scores)


def _after_ngrams(ids, size):
    """The tokens that followed what ``ids`` ends with (its last ``size`` - 1 tokens) earlier in ``ids``."""
    if len(ids) + 1 < size:
        return np.zeros(0, dtype=np.int64)
    end = ids[len(ids) - size + 1 :]
    found = [ids[i + size - 1] for i in range(len(ids) - size + 1) if ids[i : i + size - 1] == end]
    return np.array(found, dtype=np.int64)


def _force(scores, tokens):
    scores[:] = OFF
    scores[tokens] = 0


def _softmax(scores):
    exponents = np.exp(scores - np.max(scores))
    return exponents / exponents.sum()
