"""Texts of an exact number of tokens, a pure function of their arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

_TEXT = """
a in of to and the on for with from by at is it as not when over under after before each other more time year
day way water light road house garden river stone paper table window letter story music picture number answer
question market village station harbour engine report system result small large early late north south open
quiet heavy bright simple public modern common careful walk turn carry build write read send keep bring leave
follow measure compare describe explain
"""
WORDS = _TEXT.split()
FIRST = "the"


class Words:
    """Draws words whose tokens it has counted: words are tokenised on their own, so counts add up."""

    def __init__(self, tokenizer_file: Path) -> None:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))

        def tokens(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)

        self._first = tokens(FIRST)
        self._costs = [(word, tokens(f" {word}")) for word in WORDS]
        self._by_cost: dict[int, list[str]] = {}
        for word, cost in self._costs:
            self._by_cost.setdefault(cost, []).append(word)
        if 1 not in self._by_cost:
            raise ValueError(f"{tokenizer_file}: no word of one token, so texts cannot have an exact length")

    def tokens(self, count: int, *seed: int) -> str:
        """A text of exactly `count` tokens without the template; one for each seed."""
        rng = np.random.default_rng([count, *seed])
        words, left = [FIRST], count - self._first
        while left > 0:
            draws = rng.integers(len(self._costs), size=left)
            for word, cost in (self._costs[int(draw)] for draw in draws):
                if cost <= left:
                    words.append(word)
                    left -= cost
        return " ".join(words)


def sentence(count: int, *seed: int) -> str:
    """`count` words, whatever their tokens."""
    rng = np.random.default_rng([count, *seed])
    return " ".join(WORDS[int(place)] for place in rng.integers(len(WORDS), size=count))
