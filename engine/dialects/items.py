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
from typing import Annotated, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import msgspec

from qvl.engine.dialects.fields import Body
from qvl.engine.errors import BadRequest, short
from qvl.engine.magic import sniff
from qvl.engine.protocol import IMAGE_SUFFIXES, Content, Source, Video

Fps: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Frames: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=64)]


class Url(Body):
    """An image or video by `data:`, http(s) or file URL, or bare base64."""

    url: str
    detail: str | None = None
    """OpenAI's; the model has one resolution rule, so it changes nothing."""


Media: TypeAlias = str | Url


Kind: TypeAlias = Literal["text", "image_url", "image", "image_base64", "video_url", "video", "video_base64"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Part(Body):
    """Exactly one of `text`, `image_url`, `image`, `image_base64`, `video_url`, `video` and `video_base64`.

    `type` may be left out: it is the name of that one."""

    type: Kind | None = None
    text: str | None = None
    image_url: Media | None = None
    image: Media | None = None
    image_base64: str | None = None
    video_url: Media | None = None
    video: Media | list[Media] | None = None
    """A file, or the frames of one video."""
    video_base64: str | None = None
    uuid: str | None = None
    """vLLM's name for its cache; the one here goes by content."""

    def kind(self) -> Kind | None:
        """What it holds; None unless that is one thing, and of its type. A body may have half a million."""
        held = (
            *(self.text, self.image_url, self.image, self.image_base64),
            *(self.video_url, self.video, self.video_base64),
        )
        if held.count(None) != len(KINDS) - 1:
            return None
        if self.type is None:
            return next(kind for kind, value in zip(KINDS, held, strict=True) if value is not None)
        return None if getattr(self, self.type) is None else self.type

    def wrong(self, where: str) -> BadRequest:
        """Why it has no kind."""
        given = [name for name in KINDS if getattr(self, name) is not None]
        param: str = self.type or "type"
        text = f"a part of type {self.type} has a `{self.type}`, which is missing"
        if self.type is None:
            text = f"give exactly one of {', '.join(KINDS)}"
        elif self.type in given:
            param = next(name for name in given if name != self.type)
            text = f"a part of type {self.type} has no `{param}`; give another part for it"
        code = "unknown_field" if self.type in given else "missing_field"
        return BadRequest(f"{where}: {text}", param=f"{where}.{param}", code=code)


Parts: TypeAlias = Annotated[list[Part], msgspec.Meta(min_length=1)]


class Document(Body):
    """An item without an instruction: a query or a document."""

    text: str | list[str] | None = None
    image: Media | list[Media] | None = None
    video: Media | list[Media | list[Media]] | None = None
    fps: Fps | None = None
    max_frames: Frames | None = None
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
        videos, images, texts = fold(value, where)
        return Content(videos=videos, images=images, texts=texts, where=where)
    instruction: str | None = None
    given = [value.image_url]
    if isinstance(value, Item):
        instruction = value.instruction
        given += [value.pdf, value.url, value.bytes]
    older = tuple(_source(image) for image in given if image is not None)
    films = () if value.video_url is None else (_source(value.video_url),)
    if value.content is not None:
        if older or films or not (value.text is value.image is value.video is None):
            raise BadRequest(
                f"{where}: give either `content` or `text`, `image` and `video`",
                param=f"{where}.content",
                code="conflicting_fields",
            )
        videos, images, texts = fold(value.content, f"{where}.content")
    else:
        videos = (*films, *_videos(value.video, f"{where}.video"))
        images = (*map(_source, _many(value.image)), *older)
        texts = tuple(_many(value.text))
    return Content(
        videos=videos,
        images=images,
        texts=texts,
        instruction=instruction,
        fps=value.fps,
        max_frames=value.max_frames,
        where=where,
    )


def contents(values: Sequence[str | Document], where: str) -> tuple[Content, ...]:
    return tuple(content(value, f"{where}[{i}]") for i, value in enumerate(values))


def fold(
    parts: str | Sequence[Part], where: str
) -> tuple[tuple[Video, ...], tuple[Source, ...], tuple[str, ...]]:
    """Parts in the caller's order to videos, images, texts."""
    if isinstance(parts, str):
        return (), (), (parts,)
    videos: list[Video] = []
    images: list[Source] = []
    texts: list[str] = []
    for i, part in enumerate(parts):
        if (kind := part.kind()) is None:
            raise part.wrong(f"{where}[{i}]")
        value = getattr(part, kind)
        if kind == "text":
            texts.append(value)
        elif kind.startswith("image"):
            images.append(_source(value))
        else:
            if value == []:
                raise _frameless(f"{where}[{i}].{kind}")
            videos.append(_video(value))
    return tuple(videos), tuple(images), tuple(texts)


def _videos(value: Media | list[Media | list[Media]] | None, where: str) -> tuple[Video, ...]:
    if not isinstance(value, list):
        return () if value is None else (_source(value),)
    flat = [_source(entry) for entry in value if not isinstance(entry, list)]
    if flat and len(flat) == len(value) and looks_like_image(flat[0]):
        return (tuple(flat),)
    if [] in value:
        raise _frameless(f"{where}[{value.index([])}]")
    return tuple(map(_video, value))


def _video(value: Media | list[Media]) -> Video:
    return tuple(map(_source, value)) if isinstance(value, list) else _source(value)


def _frameless(where: str) -> BadRequest:
    return BadRequest(f"{where}: a video needs at least one frame", param=where, code="empty_list")


def _source(value: Media) -> str:
    return value if isinstance(value, str) else value.url


def _many(value: msgspec.Struct | str | list[str] | list[Media] | None) -> list:  # type: ignore[type-arg]  # of what it is given
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def looks_like_image(source: str) -> bool:
    """Whether a source is an image rather than a video file, by its prefix alone."""
    head = source[:16].lower()
    if head.startswith("data:"):
        return head.startswith(("data:image/", "data:application"))
    if head.startswith(("http://", "https://", "file://")):
        try:
            return urlsplit(source).path.lower().endswith(IMAGE_SUFFIXES)
        except ValueError:
            return False
    try:
        kind = sniff(base64.b64decode(source[:16], validate=True))
    except (binascii.Error, ValueError):
        return False
    return kind is not None and not kind.startswith("video/")
