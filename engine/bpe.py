"""A checkpoint's own tokenizer by tiktoken, in a seventh of the time (English), where ids are proven equal.

The tokenizer merges the pairs that its list names, lowest rank first. tiktoken merges any two neighbours
whose bytes together are a token, lowest id first. Let ids rise with ranks. As long as nothing has merged
across the ends of a span that spells a token, what happens inside is what happens to that token's bytes
alone. So if every token, alone, becomes itself, its last two parts are always the pair that the list names,
tiktoken never finds another, and both do the same steps. `proven` checks that, token by token: a second for
150 000.

What stands before the merges is the same for characters that are what they were in Unicode 3.2 (2002): both
regex engines, whose tables may differ in age, know them, and NFC leaves them alone unless marks are among
them. Other text is not taken: newer scripts, emoji, combining marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import orjson
from tiktoken import Encoding
from tokenizers import Tokenizer

Ids: TypeAlias = list[int]

_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen's pre-tokenizer: contractions, words with one leading mark, digits, marks, line ends, spaces. Both
regex engines read it alike; another may not be."""
_SPLIT = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_FOLDED = "\u017f\u212a\u0130\u0131"
"""Which an engine may take for an s, k or i where case does not matter."""
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def proven(tokenizer: Tokenizer) -> Callable[[str], Ids | None] | None:
    """Its ids without what it appends, or None for a text to be left to the tokenizer; None in place of the
    function: no proof for this tokenizer."""
    spec = orjson.loads(tokenizer.to_str())
    added = _added(spec["added_tokens"])
    if added is None or not _plain(spec) or not _has(spec["model"], _MODEL):
        return None
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    if not _rising(vocabulary, spec["model"]["merges"]) or not _themselves(tokenizer, vocabulary):
        return None
    byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
    try:
        ranks = {bytes(map(byte_of.__getitem__, token)): id for token, id in vocabulary.items()}
    except KeyError:  # a token that no bytes spell
        return None
    encoding = Encoding("", pat_str=WORDS, mergeable_ranks=ranks, special_tokens=added)
    names, unsettled = frozenset(added), re.compile(f"[^{_settled()}]")

    def encode(text: str) -> Ids | None:
        if not text.isascii() and unsettled.search(text):
            return None
        try:
            return encoding.encode(text, allowed_special=names, disallowed_special=())
        except ValueError:  # a run of spaces that its regex engine has no room for
            return None

    return encode


@cache
def _settled() -> str:
    """Ranges of a character class: what the Basic Multilingual Plane has had since Unicode 3.2, if it is the
    same to both wherever it stands."""
    plane = [chr(number) for number in range(1 << 16)]
    parts = [unicodedata.decomposition(character).split() for character in plane]
    joins = {chr(int(part[1], 16)) for part in parts if len(part) == 2 and part[0][0] != "<"}
    kept = [ord(c) for c in plane if c < "\x80" or (_known(c) and c not in joins and c not in _FOLDED)]
    known = set(kept)
    starts = [number for number in kept if number - 1 not in known]
    ends = [number for number in kept if number + 1 not in known]
    return "".join(f"\\u{start:04x}-\\u{end:04x}" for start, end in zip(starts, ends, strict=True))


def _known(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        category[0] in "LNPSZ"
        and category == unicodedata.ucd_3_2_0.category(character)
        and unicodedata.normalize("NFC", character) == character
        and not "\u1100" <= character <= "\u11ff"  # they make Hangul syllables
    )


def _has(part: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """None, False and an empty string are written for each other."""
    return all((part.get(name) or None) == (value or None) for name, value in wanted.items())


def _plain(spec: Mapping[str, Any]) -> bool:
    """Whether nothing happens to a text before the merges but NFC and the cut into words."""
    steps = (spec["pre_tokenizer"] or {}).get("pretokenizers", [])
    return (
        spec["normalizer"] in (None, {"type": "NFC"})
        and spec["truncation"] is spec["padding"] is None
        and len(steps) == 2
        and _has(steps[0], _SPLIT)
        and _has(steps[1], _BYTES)
    )


def _added(tokens: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Those that are cut out of a text, if it does not matter which is looked for first."""
    found = {token["content"]: token["id"] for token in tokens}
    one_way = not any(a != b and a.startswith(b) for a in found for b in found)
    return found if one_way and all(_has(token, _ADDED) for token in tokens) else None


def _rising(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]]) -> bool:
    """Whether a later merge makes a larger id, and whatever is not a byte is made by one."""
    made = [vocabulary.get("".join(pair), -1) for pair in merges]
    alphabet = [vocabulary.get(character) for character in _byte_characters()]
    return (
        all(before < after for before, after in zip([-1, *made], made, strict=False))
        and None not in alphabet
        and {*alphabet, *made} == set(vocabulary.values())
        and len(vocabulary) == len(alphabet) + len(made)
    )


def _themselves(tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> bool:
    merge = tokenizer.model.tokenize
    return all([each.id for each in merge(token)] == [id] for token, id in vocabulary.items())


def _byte_characters() -> list[str]:
    """GPT-2's name of each byte in a vocabulary: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = (chr(256 + place) for place in range(256))
    return [chr(byte) if byte in seen else next(hidden) for byte in range(256)]
