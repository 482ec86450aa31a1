"""The reference's prompts, as text: pure functions of an item and its loaded visuals. What becomes of one.

Text that spells a special token becomes that token, because the reference tokenises the whole
conversation as one string (a placeholder such as `<|image_pad|>` beside real media is refused later,
in `tokens`, where the reference fails).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from qvl.engine.protocol import Content, Loaded

EMBED_INSTRUCTION = "Represent the user's input."
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANK_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
START, END = "<|vision_start|>", "<|vision_end|>"
PADS = ("<|image_pad|>", "<|video_pad|>")
RERANK_SUFFIX = 5
"""Ids that end a reranker's prompt, `<|im_end|>\\n<|im_start|>assistant\\n`, and are never cut."""
IMAGE, FRAME = (f"{START}{pad}{END}" for pad in PADS)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a visual sits: an image's pads; a video's first <|vision_start|> to last <|vision_end|>."""

    offset: int
    length: int
    pad: int
    """The id of its pads; a video's span holds timestamps too."""


@dataclass(frozen=True, slots=True)
class Prompt:
    ids: list[int]
    spans: tuple[Span, ...] = ()
    """One for each visual, in order."""


@dataclass(frozen=True, slots=True)
class Template:
    """The checkpoint's chat template, generation prompt included, cut where the two messages go."""

    head: str
    middle: str
    tail: str

    def render(self, system: str, user: str) -> str:
        return f"{self.head}{system}{self.middle}{user}{self.tail}"


def embed_text(template: Template, item: Content, visuals: Sequence[Loaded], instruction: str | None) -> str:
    """One item; its own instruction goes before the request's, and that before the default.

    Each visual stands as one pad token (a video: one per pair of frames); `tokens` widens them.
    """
    system = closed(item.instruction) or closed(instruction) or EMBED_INSTRUCTION
    return template.render(system, _body(item, visuals))


def rerank_text(
    template: Template,
    query: Content,
    document: Content,
    query_visuals: Sequence[Loaded],
    document_visuals: Sequence[Loaded],
    instruction: str | None,
) -> str:
    user = (
        f"<Instruct>: {query.instruction or instruction or RERANK_INSTRUCTION}"
        f"<Query>:{_body(query, query_visuals)}"
        f"\n<Document>:{_body(document, document_visuals)}"
    )
    return template.render(RERANK_SYSTEM, user)


def closed(instruction: str | None) -> str:
    """Stripped, and with a full stop unless it ends in punctuation of any script."""
    text = (instruction or "").strip()
    if text and not unicodedata.category(text[-1]).startswith("P"):
        return text + "."
    return text


def _body(item: Content, visuals: Sequence[Loaded]) -> str:
    if not (item.videos or item.images or item.texts):
        return "NULL"
    return "".join([*(_placeholder(each) for each in visuals), *item.texts])


def _placeholder(visual: Loaded) -> str:
    if visual.kind == "image":
        return IMAGE
    frames = "".join(f"<{seconds:.1f} seconds>{FRAME}" for seconds in visual.timestamps)
    # Since transformers 5.10 the chat template's own marks stay around the frames.
    return f"{START}{frames}{END}"
