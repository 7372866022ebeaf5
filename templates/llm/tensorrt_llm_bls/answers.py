"""The texts of one request's answers, as its responses come: for every row, sequence and beam."""


class Answers:
    """
    Args:
        detokenizer: of streamed_text.py.
        prompts: token ids of every row's prompt.
        streaming: for every row whether its answer comes in parts of new tokens.
        stop_words: texts, for every row; an answer ends with the first that it holds, however its tokens fall.
        sequences: how many answers every row gets.
        accumulate: streamed answers are told from their start each time.
    """

    def __init__(self, detokenizer, prompts, *, streaming, stop_words, sequences=1, accumulate=False):
        self.detokenizer = detokenizer
        self.prompts, self.streaming = prompts, streaming
        self.stop_words, self.accumulate = stop_words, accumulate
        self.expected = len(prompts) * sequences
        self.streams = {}
        self.ended = set()

    @property
    def finished(self):
        """Whether a stop word has ended every answer."""
        return len(self.ended) >= self.expected

    def read(self, row, sequence, ids, lengths):
        """Texts of the beams of one response; None where the answer has ended before.

        Args:
            ids: [beams, tokens], of which ``lengths`` [beams] say how many count.
        """
        if (row, sequence) in self.ended:
            return None
        beams = [one[: max(0, length)] for one, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
        if not self.streaming[row]:
            return [self._whole(row, beam) for beam in beams]
        if len(beams) > 1:  # every response has all tokens so far: beams change while they grow
            return [_cut(self.detokenizer.text(beam), self.stop_words[row]) for beam in beams]
        stream = self._stream(row, sequence)
        text = stream.push(beams[0])
        if stream.ended:
            self.ended.add((row, sequence))
        return [text]

    def rest(self):
        """(row, sequence, text) of what was held back, for a character that never came whole."""
        for (row, sequence), stream in self.streams.items():
            if (row, sequence) not in self.ended and (text := stream.finish()):
                yield row, sequence, text

    def _stream(self, row, sequence):
        if (row, sequence) not in self.streams:
            made = Stream(self.detokenizer.stream(), self.stop_words[row], self.accumulate)
            self.streams[row, sequence] = made
        return self.streams[row, sequence]

    def _whole(self, row, ids):
        """An answer may begin with the prompt, as the engine is set up; a stop word counts behind it."""
        text, prompt = self.detokenizer.text(ids), self.prompts[row]
        start = len(self.detokenizer.text(prompt)) if ids[: len(prompt)] == prompt else 0
        return text[:start] + _cut(text[start:], self.stop_words[row])


class Stream:
    """One answer: its new text, up to the end of the first stop word in it."""

    def __init__(self, pieces, stop_words, accumulate):
        self.pieces, self.stop_words, self.accumulate = pieces, stop_words, accumulate
        self.longest = max(map(len, stop_words), default=1) - 1
        self.tail = ""
        self.told = ""
        self.ended = False

    def push(self, ids):
        return self._given(self.pieces.push(ids))

    def finish(self):
        held = self.pieces.finish()
        return self._given(held) if held else ""

    def _given(self, new):
        window = self.tail + new
        end = _end(window, self.stop_words)
        if end is not None:
            new, self.ended = window[len(self.tail) : end], True
        self.tail = window[-self.longest :] if self.longest else ""
        if not self.accumulate:
            return new
        self.told += new
        return self.told


def _end(text, words):
    """Where the stop word ends that ends first."""
    return min((text.find(word) + len(word) for word in words if word in text), default=None)


def _cut(text, words):
    return text[: _end(text, words)]
