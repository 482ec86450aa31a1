"""What a `Source` may be, and the bytes of those that need no network."""

from __future__ import annotations

import binascii
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pybase64

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import ConfigError, TooLarge, Unprocessable
from qvl.engine.protocol import Source

ACCEPTED = "an http(s):// URL, a data: URL with base64, bare base64, or a file:// URL below an allowed folder"
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
_ESCAPED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}
"""What base64 in a URL may need. To decode any escape makes an object of each: 5 GB of a body of 63 MB."""
_SPACES = b" \t\n\r\v\f"


def is_remote(source: Source) -> bool:
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def read(source: Source, config: MediaConfig, limits: Limits) -> bytes:
    """The encoded bytes of a source that is not remote. Blocks: call it in a worker."""
    if isinstance(source, bytes):
        return check_size(source, limits)
    scheme = source[:5].lower()
    if scheme == "data:":
        return _data_url(source, limits)
    if scheme == "file:":
        return _file(source, config, limits)
    # A cheap look at the head first, so that a stray path or sentence is not called bad base64.
    if not source.strip() or not _BASE64.fullmatch(source[:256]):
        raise Unprocessable(f"{source[:40]!r} is not an accepted source; give {ACCEPTED}", code="bad_source")
    return _base64(source, limits)


def check_size(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.media_bytes:
        raise too_big(len(data), limits)
    return data


def too_big(size: int | None, limits: Limits) -> TooLarge:
    """`size` is None where reading stopped at the limit."""
    found = "more bytes than that" if size is None else f"{size:,} bytes"
    return TooLarge(
        f"one image or video may have {limits.media_bytes:,} encoded bytes (--media-bytes); this has "
        f"{found}: send a smaller or more compressed file",
        code="media_too_large",
    )


def _data_url(source: str, limits: Limits) -> bytes:
    head, comma, payload = source.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Unprocessable(
            "a data: URL must be base64, as data:image/png;base64,iVBORw0...", code="bad_source"
        )
    payload = payload.partition("#")[0]
    if "%" in payload:
        for escape, meant in _ESCAPED.items():
            payload = payload.replace(escape, meant).replace(escape.lower(), meant)
        if "%" in payload:
            raise _bad(f"of what is written with %, it may have {', '.join(_ESCAPED)}")
    return _base64(payload, limits)


def _base64(source: str, limits: Limits) -> bytes:
    if not source.isascii():
        raise _bad("it holds characters that are not ASCII")
    text = source.encode()
    # Looked for first: to copy a clean megabyte without its spaces takes longer than to decode it.
    if any(space in text for space in _SPACES):
        text = text.translate(None, _SPACES)
    size = len(text) * 3 // 4 - text[-2:].count(b"=")
    if size > limits.media_bytes:
        raise too_big(size, limits)
    try:
        data = _decoded(text)
    except ValueError as error:
        raise _bad(str(error).lower()) from None
    if not data:
        raise Unprocessable("the base64 is empty; send the file's bytes", code="bad_base64")
    return data


def _bad(reason: str) -> Unprocessable:
    return Unprocessable(
        f"bad base64 ({reason}); use the standard alphabet (+ and /) with its padding", code="bad_base64"
    )


def _decoded(text: bytes) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)  # fifty times as fast
    except ValueError:
        return binascii.a2b_base64(text, strict_mode=True)  # says what is wrong, and takes needless padding


def _file(source: str, config: MediaConfig, limits: Limits) -> bytes:
    if not config.file_roots:
        raise _forbidden("file:// URLs are off; name the folders they may read in --file-roots")
    path = _allowed_path(source, config.file_roots)
    # The path is resolved: a link found here now was put there since. And a FIFO must not block.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unprocessable(f"cannot read the file: {error.strerror}", code="fetch_failed") from None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise Unprocessable("a file:// URL must name a regular file", code="fetch_failed")
        if info.st_size > limits.media_bytes:
            raise too_big(info.st_size, limits)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return check_size(file.read(limits.media_bytes + 1), limits)
    finally:
        os.close(handle)


def check_roots(roots: tuple[str, ...]) -> None:
    """Raises ConfigError: all that is asked for below one that is not there would be refused."""
    for root in roots:
        if not Path(root).is_dir():
            raise ConfigError(f"--file-roots {root}: no such folder")


def _allowed_path(source: str, roots: tuple[str, ...]) -> Path:
    """The resolved path, if it lies below a root; whether anything exists outside them is not told."""
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise _forbidden("a file:// URL names a local file, as file:///folder/name.jpg")
    try:
        path = Path(unquote(parts.path)).resolve()
    except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, a loop of links
        raise _forbidden("the file:// URL has no usable path") from None
    if not any(path.is_relative_to(Path(root).resolve()) for root in roots):
        raise _forbidden("the file lies outside the folders of --file-roots")
    return path


def _forbidden(message: str) -> Unprocessable:
    return Unprocessable(message, code="url_forbidden")
