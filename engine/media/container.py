"""Which video container some bytes are, from their first few.

The demuxer is chosen here and not by FFmpeg, whose probing would also find the formats that are lists of
other files (HLS, DASH, concat, SDP, ...).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Container:
    label: str
    demuxer: str


MP4 = Container("MP4 or MOV", "mov")
_MAGIC = (
    (b"\x1a\x45\xdf\xa3", Container("WebM or MKV", "matroska")),
    (b"FLV\x01", Container("FLV", "flv")),
    (b"OggS", Container("Ogg", "ogg")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Container("WMV or ASF", "asf")),
    (b"\x00\x00\x01\xba", Container("MPEG-PS", "mpeg")),
)
_SEGMENT = b"\x18\x53\x80\x67"
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_MOV_ATOMS = (b"moov", b"mdat", b"wide")
_TS_PACKET = 188

ACCEPTED = "MP4, MOV, WebM, MKV, AVI, FLV, Ogg, WMV, MPEG"


def container_of(data: bytes) -> Container | None:
    atom, brand = data[4:8], data[8:12]
    if (atom == b"ftyp" and brand not in _STILL_BRANDS) or atom in _MOV_ATOMS:
        return MP4
    if data[:4] == b"RIFF" and brand == b"AVI ":
        return Container("AVI", "avi")
    for magic, container in _MAGIC:
        if data.startswith(magic):
            return container
    if len(data) > _TS_PACKET and data[0] == data[_TS_PACKET] == 0x47:
        return Container("MPEG-TS", "mpegts")
    return None


def missing_bytes(data: bytes) -> int:
    """How far the data falls short of its header's size; FFmpeg plays a cut AVI or WebM as if it were whole.

    MP4 needs no such look: its index says how many packets there are (`demux.scan`).
    """
    if data[:4] == b"RIFF":
        # A last odd chunk may lack its padding byte.
        return 8 + int.from_bytes(data[4:8], "little") - len(data) - 1
    if data.startswith(_MAGIC[0][0]):
        size, at = _ebml_size(data, 4)
        segment = at + size
        if data[segment : segment + 4] == _SEGMENT:
            size, at = _ebml_size(data, segment + 4)
            return at + size - len(data)
    return 0


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """An EBML length and where it ends; 0 where it is not known (a live stream)."""
    width = 9 - data[at].bit_length() if at < len(data) else 1
    value = int.from_bytes(data[at : at + width], "big") & (1 << 7 * width) - 1
    return (0 if value == (1 << 7 * width) - 1 else value), at + width
