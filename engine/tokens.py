"""Prompt text to the reference's token ids, and where each visual sits among them.

Pads are widened after tokenising: special tokens split the text, so the ids are those of the
reference, which tokenises thousands of spelled-out pads instead.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from qvl.engine import bpe
from qvl.engine.errors import BadRequest, Unprocessable
from qvl.engine.prompt import RERANK_SUFFIX, Prompt, Span
from qvl.engine.protocol import Loaded, Token

_START = "<|im_start|>"
_USER = 3
"""Ids of `<|im_start|>user\n`, the second of its kind in a prompt, behind which the item stands."""


@dataclass(frozen=True, slots=True)
class SpecialIds:
    image: int
    video: int
    all: frozenset[int]
    """Every id that the tokenizer calls special; reranker truncation keeps them."""


class PromptTokenizer:
    """One checkpoint's tokenizer with the truncation rule of its role; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialIds, *, max_length: int, reranker: bool) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._reranker = reranker
        self._appended = _appended(tokenizer)
        self._proven = bpe.proven(tokenizer)
        self._start = tokenizer.token_to_id(_START)
        self.max_length = max_length
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the tokenizer's own special tokens, pads not widened; releases the GIL."""
        return [[*ids, *self._appended] for ids in self._ids(texts)]

    def _ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        found = [self._proven(text) for text in texts] if self._proven else [None] * len(texts)
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        # Of one text too: `encode` holds the GIL, a second for 2 M characters.
        slower = iter(self._tokenizer.encode_batch_fast(left, add_special_tokens=False) if left else ())
        return (next(slower).ids if ids is None else ids for ids in found)

    def clip(self, text: str, tokens: int) -> str:
        """The longest prefix of `text` that is at most `tokens` tokens, and ends with a whole character."""
        (found,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        offsets = found.offsets
        if len(offsets) <= tokens:
            return text
        while tokens and offsets[tokens][0] < offsets[tokens - 1][1]:  # one character, several tokens
            tokens -= 1
        end = offsets[tokens - 1][1] if tokens else 0
        while end < offsets[tokens][0] and unicodedata.combining(text[end]):  # read with the letter before
            end += 1
        return text[:end]

    def split(self, text: str, special: bool) -> list[Token]:
        """With or without what the tokenizer puts behind every text; releases the GIL."""
        (found,) = self._tokenizer.encode_batch([text], add_special_tokens=special)
        return [
            Token(id, piece, own == 1, start, stop)
            for id, piece, own, (start, stop) in zip(
                found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True
            )
        ]

    def prompt(
        self,
        ids: list[int],
        visuals: Sequence[Loaded],
        *,
        where: str,
        truncate: bool = True,
        max_tokens: int | None = None,
    ) -> Prompt:
        """Widen, cut, locate. Raises Unprocessable, naming `where`."""
        wide = self._widen(ids, visuals, where) if visuals else ids
        length, limit = len(wide), min(self.max_length, max_tokens or self.max_length)
        if length > limit:
            if not truncate:
                raise _too_long(length, limit, where)
            if limit < self.max_length:
                self._check_reaches(wide, limit, where)
            wide = self._cut(wide, limit)
        spans = self._locate(wide, visuals)
        if spans is None or len(wide) > limit:
            raise _too_long(length, limit, where, media=bool(visuals))
        return Prompt(wide, spans)

    def check_ids(
        self, ids: Sequence[int], where: str, *, truncate: bool = True, max_tokens: int | None = None
    ) -> Prompt:
        """A caller's prompt: fed as it is, or `max_tokens` of it. Raises BadRequest or Unprocessable."""
        limit = min(self.max_length, max_tokens or self.max_length)
        if max_tokens and truncate:
            ids = ids[:limit]
        if not ids:
            raise BadRequest("an empty list of token ids has no last token", param=where)
        if len(ids) > limit:
            raise _too_long(len(ids), limit, where)
        if max(ids) >= self.vocab_size or min(ids) < 0:
            raise BadRequest(f"token ids must be from 0 to {self.vocab_size - 1}", param=where)
        if ids[0] != self._start:  # most likely another tokenizer's, all of which mean something here too
            raise BadRequest(
                "token ids are a whole prompt and begin with <|im_start|>; these do not: send the text "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
                param=where,
                code="not_a_prompt",
            )
        return Prompt(list(ids))

    def _widen(self, ids: list[int], visuals: Sequence[Loaded], where: str) -> list[int]:
        images = sum(v.kind == "image" for v in visuals)
        frames = sum(v.grid[0] for v in visuals if v.kind == "video")
        if ids.count(self._special.image) != images or ids.count(self._special.video) != frames:
            raise Unprocessable(
                "the text spells <|image_pad|> or <|video_pad|>, which mark media here; remove it",
                param=where,
                code="reserved_token",
            )
        wide: list[int] = []
        start = 0
        for visual in visuals:
            pad = self._pad(visual)
            for _ in range(visual.grid[0]):
                at = ids.index(pad, start)
                wide += ids[start:at]
                wide += [pad] * (visual.tokens // visual.grid[0])
                start = at + 1
        return wide + ids[start:]

    def _check_reaches(self, ids: list[int], limit: int, where: str) -> None:
        """That the caller's limit leaves some of the item: else all items would be answered alike."""
        starts = [at for at, each in enumerate(ids) if each == self._start]
        around = (starts[1] + _USER if len(starts) > 1 else 0) + len(self._appended)
        if limit <= around:
            raise BadRequest(
                f"the limit of {limit} tokens leaves no room for the item: template and instruction take "
                f"{around}; raise it above {around}",
                param=where,
                code="limit_too_small",
            )

    def _cut(self, ids: list[int], limit: int) -> list[int]:
        if not self._reranker:
            return ids[: limit - len(self._appended)] + self._appended
        body, suffix = ids[:-RERANK_SUFFIX], ids[-RERANK_SUFFIX:]
        special = self._special.all
        spare = limit - RERANK_SUFFIX - sum(i in special for i in body)
        kept: list[int] = []
        for i in body:
            if i in special:
                kept.append(i)
            elif spare > 0:
                kept.append(i)
                spare -= 1
        return kept + suffix

    def _locate(self, ids: list[int], visuals: Sequence[Loaded]) -> tuple[Span, ...] | None:
        """None when the cut went through a visual."""
        spans = []
        end = 0
        for visual in visuals:
            pad, frames = self._pad(visual), visual.grid[0]
            width = visual.tokens // frames
            first = -1
            for _ in range(frames):
                try:
                    at = ids.index(pad, end)
                except ValueError:
                    return None
                end = at + width
                if end > len(ids) or ids[end - 1] != pad:
                    return None
                first = at if first < 0 else first
            if visual.kind == "video":
                first, end = first - 1, end + 1
            spans.append(Span(first, end - first, pad))
        return tuple(spans) if end <= len(ids) else None

    def _pad(self, visual: Loaded) -> int:
        return self._special.image if visual.kind == "image" else self._special.video


def _appended(tokenizer: Tokenizer) -> list[int]:
    """What this tokenizer puts behind every text (some checkpoints: <|endoftext|>)."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full: list[int] = tokenizer.encode("a", add_special_tokens=True).ids
    if full[: len(bare)] != bare:
        raise ValueError("a tokenizer that puts special tokens before the text is not a Qwen3-VL one")
    return full[len(bare) :]


def _too_long(length: int, limit: int, where: str, *, media: bool = False) -> Unprocessable:
    why = "; text can be cut, images and videos cannot: send fewer or smaller ones" if media else ""
    return Unprocessable(
        f"{length} tokens, and at most {limit} are accepted{why}", param=where, code="input_too_long"
    )
