"""What a caller hands over, as the native JSON items of the wire.

An item is a text, a picture, a file, or a dict of them:

    "a text"
    Path("cat.jpg"), Path("report.pdf#page=2"), Path("film.mp4#t=10,20")      told from the content
    PIL.Image.open("cat.jpg")                          sent as PNG, so no pixel changes
    {"text": "...", "image": [img, b"...", "https://…"], "video": [frame, frame, ...], "instruction": "..."}

Files and bytes travel as they are; strings under `image` and `video` are URLs or base64 and pass through.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from qvl.engine.errors import BadRequest, UnsupportedMedia
from qvl.engine.fragments import parted
from qvl.engine.magic import IMAGE_SUFFIXES, PDF, VIDEO_SUFFIXES, sniff
from qvl.engine.protocol import Content

if TYPE_CHECKING:
    from PIL.Image import Image

Item: TypeAlias = "str | bytes | Path | Image | Mapping[str, Any]"
Json: TypeAlias = str | dict[str, Any]

MEDIA_KEYS = frozenset({"image", "video", "content"})
PATH = re.compile(
    rf"(?!\w+:)[^\0\n]{{1,4096}}({'|'.join(map(re.escape, IMAGE_SUFFIXES + VIDEO_SUFFIXES))})", re.I
)
"""How the path of a file looks."""
OF_A_MEDIUM = re.compile(r"\.(image|video|image_url|video_url|url)(\[\d+\])*$")
PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})


def is_one_item(value: object) -> TypeGuard[Item]:
    """Whether a caller gave a single item where a list of them is expected."""
    return isinstance(value, str | bytes | Path | Mapping) or _is_image(value)


def native(item: Item, where: str = "input") -> Json:
    """The JSON of one item; `where` names it in errors, as the server would."""
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping):
        return {
            key: _media(value, f"{where}.{key}") if key in MEDIA_KEYS else value
            for key, value in item.items()
        }
    if _is_image(item):
        return {"image": png_url(item, where)}
    if isinstance(item, bytes | Path):
        data, page = _read(item)
        mime = sniff(data)
        if mime is None:
            raise UnsupportedMedia(f"{where} is not an image or video of a known format", param=where)
        return {"image" if mime == PDF else mime.partition("/")[0]: data_url(data, mime) + page}
    raise BadRequest(
        f"{where} is of type {type(item).__name__}, not a text, picture, file or dict", param=where
    )


def written(content: Content) -> dict[str, Any]:
    """The JSON of a query or document, in parts: in the other shapes a list under `video` may be one video or
    several. Without an instruction, which neither of them has on the wire."""
    given = (("video", content.videos), ("image", content.images), ("text", content.texts))
    parts = [
        {"type": kind, kind: _media(each, content.where), **_limits(content, kind, each)}
        for kind, some in given
        for each in some
    ]
    options = {"fps": content.fps, "max_frames": content.max_frames}
    return {"content": parts} | {key: value for key, value in options.items() if value is not None}


def _limits(content: Content, kind: str, medium: object) -> dict[str, int]:
    kind = "frames" if isinstance(medium, tuple) else kind
    return {name: value for of, name, value in content.limits if of == kind}


def _media(value: Any, where: str) -> Any:
    if isinstance(value, bytes | Path):
        data, page = _read(value)
        # The server refuses what it cannot read, with its own list of formats; a mime it ignores is enough.
        return data_url(data, sniff(data) or "application/octet-stream") + page
    if _is_image(value):
        return png_url(value, where)
    if isinstance(value, Mapping):
        return {key: _media(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_media(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, str) and PATH.fullmatch(value) and OF_A_MEDIUM.search(where):
        # No URL, and no base64, which has no dot: the server could only refuse it.
        raise BadRequest(f"{where} is no URL and no base64; for a file write Path({value!r})", param=where)
    if value is None or isinstance(value, str | int | float):
        return value
    raise BadRequest(
        f"{where} is of type {type(value).__name__}, not a picture, bytes, path or URL", param=where
    )


def _read(given: bytes | Path) -> tuple[bytes, str]:
    """The bytes, and the end of a name that says a page or a part of them: that of its URL, too."""
    if isinstance(given, bytes):
        return given, ""
    file, end = parted(given)
    return file.read_bytes(), end


def data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def png_url(image: Image, where: str = "image") -> str:
    """Lossless; modes that PNG lacks become RGB, which is what the server would make of them."""
    buffer = BytesIO()
    try:
        (image if image.mode in PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise UnsupportedMedia(
            f"{where}: Pillow makes no PNG of this picture of mode {image.mode} ({error})", param=where
        ) from error
    return data_url(buffer.getvalue(), "image/png")


def _is_image(value: object) -> TypeGuard[Image]:
    # Whoever holds a PIL image has imported PIL; those who do not should not pay for it.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)
