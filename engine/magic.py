"""What kind of file some bytes are, from their first few; what is accepted, its reader says."""

from __future__ import annotations

PDF = "application/pdf"
"""One of a single page is a picture."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".pdf")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".ogv", ".3gp")
"""By which a file is known that nobody has looked into."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", PDF),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"FLV\x01", "video/x-flv"),
    (b"OggS", "video/ogg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
)
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_STILLS = {
    **{b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic"},
    **{b"mif1": "image/heif", b"msf1": "image/heif"},
}
_ATOMS = (b"moov", b"mdat")
_PADDING = (b"wide", b"free", b"skip")
_TS_PACKET = 188


def sniff(data: bytes) -> str | None:
    """The mime type, or None."""
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    kind, brand = data[4:8], data[8:12]
    if data[:4] == b"RIFF":
        return _RIFF.get(brand)
    if kind == b"ftyp":
        return _STILLS.get(brand, "video/quicktime" if brand == b"qt  " else "video/mp4")
    # These are words as well: the length in front of one in a file begins with 0.
    if kind in _ATOMS or (kind in _PADDING and data[0] == 0):
        return "video/quicktime"
    # A sync byte in front of every packet.
    if data[:1] == data[_TS_PACKET : _TS_PACKET + 1] == b"G":
        return "video/mp2t"
    return None
