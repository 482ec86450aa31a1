"""A checkpoint's own tokenizer by tiktoken, in a seventh of the time, where its ids are proven the same.

The tokenizer merges the pairs that its list names, lowest rank first. tiktoken merges any two neighbours
whose bytes together are a token, lowest id first. Let ids rise with ranks. As long as nothing has merged
across the ends of a span that spells a token, what happens inside is what happens to that token's bytes
alone. So if every token, alone, becomes itself, its last two parts are always the pair that the list names,
tiktoken never finds another, and both do the same steps. `proven` checks that, token by token: a second for
150 000.

What stands before the merges is the same for ASCII: NFC leaves it alone, and letters, digits and spaces are
the same to both regex engines, whose tables of other scripts may differ in age. Other text is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def proven(tokenizer: Tokenizer) -> Callable[[str], Ids | None] | None:
    """Its ids without what it appends, or None for a text to be left to the tokenizer; None in place of the
    function: no proof for this tokenizer."""
    spec = orjson.loads(tokenizer.to_str())
    pattern, added = _pattern(spec), _added(spec["added_tokens"])
    if pattern is None or added is None or not _has(spec["model"], _MODEL):
        return None
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    if not _rising(vocabulary, spec["model"]["merges"]) or not _themselves(tokenizer, vocabulary):
        return None
    byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
    try:
        ranks = {bytes(map(byte_of.__getitem__, token)): id for token, id in vocabulary.items()}
    except KeyError:  # a token that no bytes spell
        return None
    encoding = Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)
    names = frozenset(added)

    def encode(text: str) -> Ids | None:
        if not text.isascii():
            return None
        try:
            return encoding.encode(text, allowed_special=names, disallowed_special=())
        except ValueError:  # a run of spaces that its regex engine has no room for
            return None

    return encode


def _has(part: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """None, False and an empty string are written for each other."""
    return all((part.get(name) or None) == (value or None) for name, value in wanted.items())


def _pattern(spec: Mapping[str, Any]) -> str | None:
    """Of the words, if nothing else happens to a text before the merges."""
    plain = spec["normalizer"] in (None, {"type": "NFC"}) and spec["truncation"] is spec["padding"] is None
    steps = (spec["pre_tokenizer"] or {}).get("pretokenizers", [])
    if not plain or len(steps) != 2 or not _has(steps[0], _SPLIT) or not _has(steps[1], _BYTES):
        return None
    found: str | None = steps[0]["pattern"].get("Regex")
    return found


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
