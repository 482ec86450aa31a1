"""An item, or a query and a document, as the chat messages that the official code makes of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Item = Mapping[str, Any]
Part = dict[str, Any]

FACTOR = 32
IMAGE_PIXELS = {"min_pixels": 4 * FACTOR**2, "max_pixels": 1800 * FACTOR**2}
FRAMES_PIXELS = {"total_pixels": 10 * 768 * FACTOR**2}
MAX_FRAMES = 64
FPS = 1

EMBED = "Represent the user's input."
RERANK = "Given a search query, retrieve relevant candidates that answer the query."
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)


def embedding(item: Item, pixels: Mapping[str, int] = IMAGE_PIXELS) -> list[Part]:
    instruction = (item.get("instruction") or "").strip()
    if instruction and unicodedata.category(instruction[-1])[0] != "P":
        instruction += "."
    return _messages(instruction or EMBED, content(item, pixels))


def pair(
    query: Item, document: Item, instruction: str | None, pixels: Mapping[str, int] = IMAGE_PIXELS
) -> list[Part]:
    parts = [
        _text("<Instruct>: " + (instruction or RERANK)),
        _text("<Query>:"),
        *content(query, pixels),
        _text("\n<Document>:"),
        *content(document, pixels),
    ]
    return _messages(JUDGE, parts)


def content(item: Item, pixels: Mapping[str, int] = IMAGE_PIXELS) -> list[Part]:
    """Videos, then images, then texts; an empty string is a text, an empty list is not."""
    videos = [_video(each, item) for each in _videos(item.get("video"))]
    images = [{"type": "image", "image": each, **pixels} for each in _listed(item.get("image"))]
    texts = [_text(each) for each in _listed(item.get("text"))]
    return videos + images + texts or [_text("NULL")]


def _messages(system: str, user: list[Part]) -> list[Part]:
    return [{"role": "system", "content": [_text(system)]}, {"role": "user", "content": user}]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _videos(value: Any) -> list[Any]:
    """A list of images is one video, any other list is several."""
    listed = _listed(value)
    return [listed] if listed and isinstance(listed[0], Image.Image) else listed


def _video(video: str | Path | Sequence[Image.Image], item: Item) -> Part:
    """A file takes the item's fps and max_frames; a list of frames is always cut to 64, spread evenly."""
    if isinstance(video, str | Path):
        rate = {"fps": item.get("fps") or FPS, "max_frames": item.get("max_frames") or MAX_FRAMES}
        return {"type": "video", "video": f"file://{video}", **rate}
    frames = list(video)
    if len(frames) > MAX_FRAMES:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, MAX_FRAMES, dtype=int)]
    return {"type": "video", "video": frames, **FRAMES_PIXELS}
