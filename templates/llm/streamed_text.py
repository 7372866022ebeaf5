"""Token ids to text: whole, or as they come in whole characters; both as the `tokenizers` library decodes all of them.

Two kinds of vocabulary spell a character with several tokens. In a byte-level one every token is a piece of UTF-8. With
byte fallback some tokens are single bytes (``<0xE6>``) among tokens that are text; the library reads a run of them
together, so a run is text only when it has ended. Every token is decoded once, whatever the length of the answer.
"""

import codecs
import json
import re

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Detokenizer:
    def __init__(self, tokenizer, skip_special_tokens=True):
        self.tokenizer = tokenizer
        self.special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.skipped = self.special if skip_special_tokens else set()
        decoder = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else {}
        kinds = {one["type"] for one in decoder.get("decoders", [decoder]) if one}
        self.byte_level = "ByteLevel" in kinds
        self.byte_fallback = "ByteFallback" in kinds
        self.spelled = {}
        self.before, self.before_length = ([], 0) if self.byte_level else self._any_token()

    def text(self, ids):
        """Of a whole answer."""
        return self.tokenizer.decode(self._kept(ids), skip_special_tokens=False)

    def continued(self, ids):
        """What the ids add to a text that goes before them."""
        kept = self._kept(ids)
        return self.tokenizer.decode([*self.before, *kept], skip_special_tokens=False)[self.before_length :]

    def part(self, ids):
        """Bytes of one part of an answer whose other parts are unknown: half a character at an end stays as it is.

        Only a part that begins with a special token, as a prompt does, is taken for the start of a text.
        """
        kept = self._kept(ids)
        if self.byte_level:
            return _mended(b"".join(map(self._bytes, kept)))
        first, last = 0, len(kept)
        while first < last and self._is_byte(kept[first]):
            first += 1
        while last > first and self._is_byte(kept[last - 1]):
            last -= 1
        starts = not first and len(ids) and int(ids[0]) in self.special
        middle = self.text(kept[first:last]) if starts else self.continued(kept[first:last])
        raw = [b"".join(map(self._bytes, run)) for run in (kept[:first], kept[last:])]
        return raw[0] + middle.encode("utf-8") + raw[1]

    def stream(self):
        """What turns the ids of one answer into text as they come: ``push(ids)`` and, at the end, ``finish()``."""
        return ByteLevelStream(self) if self.byte_level else PieceStream(self)

    def _kept(self, ids):
        return [
            i for i in map(int, ids) if i >= 0 and i not in self.skipped and self.tokenizer.id_to_token(i) is not None
        ]

    def _is_byte(self, token_id):
        return self.byte_fallback and BYTE.fullmatch(self.tokenizer.id_to_token(token_id)) is not None

    def _bytes(self, token_id):
        if token_id not in self.spelled:
            self.spelled[token_id] = self._spelled(self.tokenizer.id_to_token(token_id))
        return self.spelled[token_id]

    def _spelled(self, token):
        if not self.byte_level:
            return bytes.fromhex(BYTE.fullmatch(token)[1])
        try:
            return bytes(BYTE_OF[character] for character in token)
        except KeyError:  # an added token, which is written as it reads
            return token.encode("utf-8")

    def _any_token(self):
        """A token that is plain text, to stand before others, and the length of its text."""
        ids = (self.tokenizer.token_to_id(token) for token in "aeox.0一")
        for token_id in [*ids, *range(self.tokenizer.get_vocab_size(with_added_tokens=False))]:
            if token_id is None or token_id in self.special or self.tokenizer.id_to_token(token_id) is None:
                continue
            once, twice = (self.tokenizer.decode([token_id] * n, skip_special_tokens=False) for n in (1, 2))
            if once.strip() and twice.startswith(once) and len(twice) > len(once) and not self._is_byte(token_id):
                return [token_id], len(once)
        return [], 0


class ByteLevelStream:
    def __init__(self, detokenizer):
        self.detokenizer = detokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids):
        detokenizer = self.detokenizer
        return self.decoder.decode(b"".join(map(detokenizer._bytes, detokenizer._kept(ids))))

    def finish(self):
        return self.decoder.decode(b"", final=True)


class PieceStream:
    def __init__(self, detokenizer):
        self.detokenizer = detokenizer
        self.held = []  # tokens of which nothing is told yet
        self.started = False

    def push(self, ids):
        kept = self.detokenizer._kept(ids)
        end = len(kept)
        while end and self.detokenizer._is_byte(kept[end - 1]):
            end -= 1
        if not end:
            self.held += kept
            return ""
        ready, self.held = self.held + kept[:end], kept[end:]
        text = self._told(ready)
        if not text and not self.started:  # a space that the start of a text loses
            self.held = ready + self.held
        return text

    def finish(self):
        return self._told(self.held)

    def _told(self, ids):
        if self.started:
            return self.detokenizer.continued(ids)
        text = self.detokenizer.text(ids)
        self.started = bool(text)
        return text


def _mended(raw):
    """UTF-8 with what is broken inside replaced, and half a character at either end left as it is."""
    start = 0
    while start < min(3, len(raw)) and raw[start] & 0xC0 == 0x80:
        start += 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(raw[start:])
    return raw[:start] + text.encode("utf-8") + decoder.getstate()[0]


def _byte_of():
    """GPT-2's alphabet: bytes that print are themselves, the others are the characters from U+0100 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printed}
    others = [byte for byte in range(256) if byte not in printed]
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF = _byte_of()
