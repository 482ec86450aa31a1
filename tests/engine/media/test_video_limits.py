"""Video files that are refused: damaged, too much, or no video at all."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import av
import numpy as np
import pytest

from qvl.engine.config import Limits
from qvl.engine.errors import TooLarge
from qvl.engine.media import video
from qvl.engine.media.demux import Index, check_work, scan
from qvl.engine.protocol import Content


@pytest.mark.parametrize("format", ["mp4", "faststart", "webm", "avi"])
def test_truncated_files(format, refusal, film, remuxed):
    codec = {"webm": "libvpx-vp9", "avi": "mjpeg"}.get(format, "libx264")
    data = film(count=30, codec=codec, format=format.replace("faststart", "mp4"))
    if format == "faststart":
        data = remuxed(data, movflags="faststart")
        assert data.index(b"moov") < data.index(b"mdat")
    error = refusal(Content(videos=(data[: len(data) // 2],), where="input[1]"))
    assert (error.status, error.code, error.param) == (422, "undecodable_media", "input[1].video")


def test_damaged_bytes_never_escape(load, film):
    """Whatever the decoders make of them, it is an answer or a 4xx."""
    rng = np.random.default_rng(1)
    good = [film(count=8), film(count=8, codec="libvpx", format="webm")]
    contents = []
    for seed in range(30):
        data = bytearray(good[seed % 2])
        for place in rng.integers(8, len(data), 1 + seed):
            data[place] = rng.integers(256)
        contents.append(Content(videos=(bytes(data),)))
    for outcome in load(*contents):
        assert isinstance(outcome, tuple) or 400 <= outcome.status < 500


def test_one_frame_is_too_few(refusal, film):
    error = refusal(Content(videos=(film(count=1),)))
    assert (error.status, error.code) == (422, "too_few_frames")


def test_seconds(refusal, one, film):
    data = film(count=40, rate=10)
    error = refusal(Content(videos=(data,)), limits=Limits(video_seconds=3.5))
    assert (error.status, error.code) == (413, "video_too_long") and "--video-seconds" in error.message
    assert one(Content(videos=(data,)), limits=Limits(video_seconds=4.5))


def test_pixels_of_a_frame(refusal, film):
    error = refusal(Content(videos=(film(count=4),)), limits=Limits(image_pixels=320 * 240 - 1))
    assert (error.status, error.code) == (413, "too_many_pixels") and "--image-pixels" in error.message


def test_frames_of_a_file(refusal, film):
    data = film(count=36_001, size=(32, 32), rate=200, codec="mpeg4", still=True)
    error = refusal(Content(videos=(data,)))
    assert (error.status, error.code) == (413, "too_many_frames") and "36,000" in error.message
    part = f"data:video/mp4;base64,{base64.b64encode(data).decode()}#t=1,2"
    error = refusal(Content(videos=(part,)))  # one that cannot be had without all before it
    assert (error.status, error.code) == (413, "too_many_frames") and "decoded" in error.message


def test_a_whole_film_lasts_as_long_as_its_times_say(film, monkeypatch):
    """Of frames at uneven times the demuxer guesses a rate."""
    monkeypatch.setattr(video, "scan", lambda *of, **more: replace(scan(*of, **more), rate=0.5))
    pixels, _ = video.load_video(film(count=60), 0.5, 8, Limits(video_seconds=10))
    assert len(pixels) == 8


def test_pixels_decoded_of_a_file():
    """Checked on what would have to be decoded: an index of ten minutes in 8K, and of a minute."""
    eight_k = Index((), (), False, 60.0, "h264", 4320, 7680)
    with pytest.raises(TooLarge, match="74,649,600,000") as caught:
        check_work(eight_k, 36_000)
    assert caught.value.code == "too_many_frames"
    check_work(eight_k, 2_000)


def test_a_codec_left_out(refusal, film):
    error = refusal(Content(videos=(film(count=4, codec="ffvhuff", format="avi"),)))
    assert (error.status, error.code) == (415, "unsupported_media") and "ffvhuff" in error.message


def test_a_size_that_changes(refusal, film):
    """Two H.264 streams one after the other, as broadcasts do."""
    data = film(count=6, size=(320, 240), format="mpegts") + film(count=6, size=(160, 240), format="mpegts")
    error = refusal(Content(videos=(data,)))
    assert (error.status, error.code) == (422, "frame_sizes")


def test_audio_only(refusal):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    error = refusal(Content(videos=(buffer.getvalue(),)))
    assert error.status == 415 and "no video stream" in error.message


def test_wrong_kind(refusal, picture, encoded, film):
    error = refusal(Content(images=(film(count=4),)))
    assert (error.status, error.code) == (415, "wrong_media_kind") and "`video`" in error.message
    error = refusal(Content(videos=(encoded(picture(64, 64)),)))
    assert (error.status, error.code) == (415, "wrong_media_kind") and "`image`" in error.message
