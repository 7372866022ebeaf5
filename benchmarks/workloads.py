"""The texts that clients send: short ones of one length, and mixed ones. Needs the standard library alone."""

from __future__ import annotations

import math
import random

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")
"""Each is one token of BERT's vocabulary."""

SHORTEST, LONGEST = 4, 200


def texts(workload: str, count: int = 512) -> list[str]:
    """``fixed``: 16 tokens each; ``mixed``: log-uniform from 4 to 200 tokens, special tokens included."""
    if workload == "fixed":
        return [f"A short sentence about the number {n % 90 + 10}, the weather and a cat." for n in range(count)]
    random_ = random.Random(0)
    lengths = [round(math.exp(random_.uniform(math.log(SHORTEST), math.log(LONGEST)))) for _ in range(count)]
    return [" ".join(random_.choices(WORDS, k=length - 2)) for length in lengths]
