"""One item (or query, or document) as callers write it, to `Content`.

    "a string"                         a text; a medium where it begins as a `data:` URL of one does
    {"text": …, "image": …, "video": …, "instruction": …, "fps": …, "max_frames": …}
    {"content": [{"type": "text", "text": …}, {"type": "image_url", "image_url": {"url": …}}, …]}

Text, image and video are one or a list. The model reads videos, then images, then texts, whatever the
caller's order: parts are folded into that order.

A `video` that is a list: a nested list is always the frames of one video. A flat list is the frames of
one video when its first element is an image, otherwise a list of videos.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from qvl.engine.dialects.parts import (
    Media,
    Part,
    Parts,
    Seen,
    fold,
    frameless,
    limited,
    sampled,
    source,
    video,
)
from qvl.engine.errors import BadRequest, short
from qvl.engine.magic import IMAGE_SUFFIXES, sniff
from qvl.engine.protocol import Content, Video


class Document(Seen):
    """An item without an instruction: a query or a document."""

    text: str | list[str] | None = None
    image: Media | list[Media] | None = None
    video: Media | list[Media | list[Media]] | None = None
    content: str | list[Part] | None = None
    type: Literal["text", "image", "video", "image_url", "video_url"] | None = None
    """Of one part that is written without `content`; what it holds says as much."""
    image_url: Media | None = None
    video_url: Media | None = None


Query: TypeAlias = str | Document | Parts
"""SGLang writes the parts without an object around them."""


class Item(Document):
    instruction: str | None = None
    pdf: Media | None = None
    """Jina's. An image too: a page."""
    url: str | None = None
    bytes: str | None = None
    """An image, in Jina's older words, which LlamaIndex writes."""


_DATA_URL = re.compile(r"\s*data:([^\s,;]*)(?:;[^,]*)?;\s*base64,", re.IGNORECASE)
_HEAD = 256
"""Characters in which a string says that it is one."""


def content(value: str | Document | list[Part], where: str) -> Content:
    """The item that a caller wrote; `where` is how errors name it."""
    if isinstance(value, str):
        # Nobody wants the vector of base64. Whoever does says {"text": …}.
        if not (found := _DATA_URL.match(value[:_HEAD])):
            return Content(texts=(value,), where=where)
        kind, media = (found[1] or "").lower(), (value.lstrip(),)
        if kind.startswith("image/") or kind == "application/pdf":
            return Content(images=media, where=where)
        if kind.startswith("video/"):
            return Content(videos=media, where=where)
        raise BadRequest(
            f"{where}: a data: URL is of an image, a video or a PDF (data:image/png;base64,…), this of "
            f'{short(kind) or "no type"}; if it is a text, send {{"text": …}}',
            param=where,
            code="not_a_medium",
        )
    if isinstance(value, list):
        return fold(value, where)
    instruction: str | None = None
    given = [value.image_url]
    if isinstance(value, Item):
        instruction = value.instruction
        given += [value.pdf, value.url, value.bytes]
    older = tuple(source(image) for image in given if image is not None)
    films = () if value.video_url is None else (source(value.video_url),)
    if value.content is not None:
        if older or films or not (value.text is value.image is value.video is None):
            raise BadRequest(
                f"{where}: give either `content` or `text`, `image` and `video`",
                param=f"{where}.content",
                code="conflicting_fields",
            )
        item = fold(value.content, f"{where}.content")
        item = sampled(replace(item, instruction=instruction, where=where), value.fps, value.max_frames)
        return limited(item, value)
    item = Content(
        videos=(*films, *_videos(value.video, f"{where}.video")),
        images=(*map(source, _many(value.image)), *older),
        texts=tuple(_many(value.text)),
        instruction=instruction,
        fps=value.fps,
        max_frames=value.max_frames,
        where=where,
    )
    return limited(item, value)


def contents(values: Sequence[str | Document], where: str) -> tuple[Content, ...]:
    return tuple(content(value, f"{where}[{i}]") for i, value in enumerate(values))


def _videos(value: Media | list[Media | list[Media]] | None, where: str) -> tuple[Video, ...]:
    if not isinstance(value, list):
        return () if value is None else (source(value),)
    flat = [source(entry) for entry in value if not isinstance(entry, list)]
    if flat and len(flat) == len(value) and looks_like_image(flat[0]):
        return (tuple(flat),)
    if [] in value:
        raise frameless(f"{where}[{value.index([])}]")
    return tuple(map(video, value))


def _many(value: msgspec.Struct | str | list[str] | list[Media] | None) -> list:  # type: ignore[type-arg]  # of what it is given
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def looks_like_image(given: str) -> bool:
    """Whether a source is an image rather than a video file, by its prefix alone."""
    head = given[:16].lower()
    if head.startswith("data:"):
        return head.startswith(("data:image/", "data:application"))
    if head.startswith(("http://", "https://", "file://")):
        try:
            return urlsplit(given).path.lower().endswith(IMAGE_SUFFIXES)
        except ValueError:
            return False
    try:
        kind = sniff(base64.b64decode(given[:16], validate=True))
    except (binascii.Error, ValueError):
        return False
    return kind is not None and not kind.startswith("video/")
