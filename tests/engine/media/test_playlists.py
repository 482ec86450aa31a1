"""Bytes that name other files or URLs lead to none of them."""

from __future__ import annotations

import pytest

from qvl.engine.protocol import Content

PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile '{url}'\n",
    "dash": b"<?xml version='1.0'?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "rtsp": b"[Reference]\nRef1={url}\n",
    "asx": b"<asx version='3.0'><entry><ref href='{url}'/></entry></asx>",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("wrapped", ["bare", "as mp4", "as webm", "as avi"])
def test_lists_of_other_files_reach_nothing(kind, wrapped, refusal, film, tmp_path, server):
    """The list names a good video, on disk and on a server: it must be read from neither."""
    (tmp_path / "good.mp4").write_bytes(film(count=8))
    server.add("/good.mp4", (tmp_path / "good.mp4").read_bytes())
    head = {
        "bare": b"",
        "as mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
        "as webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm",
        "as avi": b"RIFF\x04\x00\x00\x00AVI ",
    }[wrapped]
    for url in (f"{tmp_path}/good.mp4", f"file://{tmp_path}/good.mp4", f"{server.url}/good.mp4"):
        error = refusal(Content(videos=(head + PLAYLISTS[kind].replace(b"{url}", url.encode()),)))
        assert error.status in (415, 422)
    assert server.seen == []


def test_a_mov_that_names_its_data_elsewhere(refusal, film, tmp_path):
    """A QuickTime data reference: FFmpeg can follow one, from a file that lies beside."""
    whole = film(count=8)
    (tmp_path / "good.mp4").write_bytes(whole)
    path = str(tmp_path / "good.mp4").encode()
    url = whole.index(b"url \x00\x00\x00\x01")
    entry = b"url \x00\x00\x00\x00" + path + b"\x00"
    data = bytearray(whole)
    grown = len(entry) - 8
    data[url : url + 8] = entry
    for atom in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(atom) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + grown).to_bytes(4, "big")
    data[url - 4 : url] = (len(entry) + 4).to_bytes(4, "big")
    mdat = data.index(b"mdat") + 4
    size = int.from_bytes(data[mdat - 8 : mdat - 4], "big") - 8
    data[mdat : mdat + size] = bytes(size)
    error = refusal(Content(videos=(bytes(data),)))
    assert error.status in (415, 422)
