"""sentencepiece's normalization of texts, as a normalizer of the `tokenizers` library.

The library's own Precompiled takes the shortest rule that fits within a letter and its marks; sentencepiece takes the
longest that fits at a place. The file is ``NormalizerSpec.precompiled_charsmap`` of a sentencepiece model: the length
of a trie in bytes, the trie (a darts-clone double array of what is replaced, in UTF-8), and what it is replaced by,
each ended by a zero byte (sentencepiece, src/normalizer.cc).
"""

import numpy as np

LABEL = 1 << 31 | 0xFF


class Charsmap:
    def __init__(self, path):
        with open(path, "rb") as handle:
            content = handle.read()
        size = int.from_bytes(content[:4], "little")
        self.units = np.frombuffer(content, "<u4", count=size // 4, offset=4).tolist()
        self.replacements = content[4 + size :]

    def normalize(self, normalized):
        """Called by the library with what lies between special tokens."""
        text = normalized.normalized
        if text:
            normalized.replace(text, self.replaced(text))

    def replaced(self, text):
        raw, made, start = text.encode("utf-8"), [], 0
        while start < len(raw):
            end, new = self.longest(raw, start)
            if new is None:
                end = start + 1
                while end < len(raw) and raw[end] & 0xC0 == 0x80:
                    end += 1
                new = raw[start:end]
            made.append(new)
            start = end
        return b"".join(made).decode("utf-8")

    def longest(self, raw, start):
        """Where the longest rule that fits at ``start`` ends, and what it puts there; None where no rule fits."""
        found, place = (start, None), _offset(self.units[0])
        for end in range(start, len(raw)):
            place ^= raw[end]
            if place >= len(self.units) or self.units[place] & LABEL != raw[end]:
                break
            unit = self.units[place]
            place ^= _offset(unit)
            if unit >> 8 & 1:
                new = self.units[place] & 0x7FFFFFFF
                found = end + 1, self.replacements[new : self.replacements.index(b"\0", new)]
        return found


def _offset(unit):
    return (unit >> 10) << ((unit & 1 << 9) >> 6)
