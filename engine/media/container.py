"""Which video container some bytes are, from their first few.

The demuxer is chosen here and not by FFmpeg, whose probing would also find the formats that are lists of
other files (HLS, DASH, concat, SDP, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

from qvl.engine.magic import sniff


@dataclass(frozen=True, slots=True)
class Container:
    label: str
    demuxer: str


MP4 = Container("MP4 or MOV", "mov")
_CONTAINERS = {
    "video/mp4": MP4,
    "video/quicktime": MP4,
    "video/webm": Container("WebM or MKV", "matroska"),
    "video/x-msvideo": Container("AVI", "avi"),
    "video/x-flv": Container("FLV", "flv"),
    "video/ogg": Container("Ogg", "ogg"),
    "video/x-ms-asf": Container("WMV or ASF", "asf"),
    "video/mpeg": Container("MPEG-PS", "mpeg"),
    "video/mp2t": Container("MPEG-TS", "mpegts"),
}
_SEGMENT = b"\x18\x53\x80\x67"

ACCEPTED = "MP4, MOV, WebM, MKV, AVI, FLV, Ogg, WMV, MPEG"


def container_of(data: bytes) -> Container | None:
    return _CONTAINERS.get(sniff(data) or "")


def missing_bytes(data: bytes) -> int:
    """How far the data falls short of its header's size; FFmpeg plays a cut AVI or WebM as if it were whole.

    MP4 needs no such look: its index says how many packets there are (`demux.scan`).
    """
    if data[:4] == b"RIFF":
        # A last odd chunk may lack its padding byte.
        return 8 + int.from_bytes(data[4:8], "little") - len(data) - 1
    if sniff(data) == "video/webm":
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
