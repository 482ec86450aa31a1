"""Width and height of an inline image from its first bytes, without decoding its base64 as a whole.

An estimate for admission: whatever is odd gives None, never an error; the decoder tells the caller later.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import TypeAlias

from qvl.engine.protocol import Source

Size: TypeAlias = tuple[int, int]
Read: TypeAlias = Callable[[int, int], bytes]
"""`read(at, count)`: bytes of the file; fewer where it ends."""

_HEAD = 32
_MOST_SEGMENTS = 64
"""Of a JPEG before its frame header; cameras write about ten."""
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG's markers of a frame header, which holds the size."""
_REMOTE = ("http://", "https://", "file://")
_LONGEST_MIME = 256


def image_size(source: Source) -> Size | None:
    """(width, height) of a PNG, JPEG, WebP, GIF or BMP given inline; None when it cannot be told cheaply."""
    try:
        read = _reader(source)
        return _size(read) if read else None
    except (ValueError, IndexError):  # no base64, or too short; binascii.Error is a ValueError
        return None


def _reader(source: Source) -> Read | None:
    if isinstance(source, bytes):
        return lambda at, count: source[at : at + count]
    start = 0
    if source[:5].lower() == "data:":
        start = source.find(",", 0, _LONGEST_MIME) + 1
        if not start:
            return None
    elif source[:8].lower().startswith(_REMOTE):
        return None

    def read(at: int, count: int) -> bytes:
        """Base64 can be entered at every fourth character."""
        first, skip = divmod(at, 3)
        end = start + 4 * ((at + count + 2) // 3)
        return binascii.a2b_base64(source[start + 4 * first : end], strict_mode=True)[skip : skip + count]

    return read


def _size(read: Read) -> Size | None:
    head = read(0, _HEAD)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _sides(_big(head[16:20]), _big(head[20:24]))
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(read)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _sides(_little(head[6:8]), _little(head[8:10]))
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head.startswith(b"BM") and head[14] >= 40:
        return _sides(_little(head[18:22]), abs(int.from_bytes(head[22:26], "little", signed=True)))
    return None


def _jpeg(read: Read) -> Size | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        segment = read(at, 9)
        if segment[0] != 0xFF:
            return None
        if segment[1] in _FRAMES:
            return _sides(_big(segment[7:9]), _big(segment[5:7]))
        at += 2 + _big(segment[2:4])
    return None


def _webp(head: bytes) -> Size | None:
    if head[12:16] == b"VP8X":
        return _sides(_little(head[24:27]) + 1, _little(head[27:30]) + 1)
    if head[12:16] == b"VP8L":
        bits = _little(head[21:25])
        return _sides((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    return _sides(_little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF)


def _sides(width: int, height: int) -> Size | None:
    return (width, height) if width and height else None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
