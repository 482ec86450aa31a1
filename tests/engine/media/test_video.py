"""Video files, against qwen_vl_utils' fetch_video around a reader that decodes everything.

None of its own readers can run here (no torchcodec, no decord, and torchvision has lost `read_video`), so
the test registers one that is line by line `_read_video_torchvision` with PyAV's frames.
"""

from __future__ import annotations

import base64
import io
import os
import struct

import av
import numpy as np
import pytest
import torch
from qwen_vl_utils import vision_process
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from qvl.engine.client.items import native
from qvl.engine.config import Limits
from qvl.engine.errors import TooLarge, Unprocessable
from qvl.engine.fragments import Span
from qvl.engine.media.container import container_of
from qvl.engine.media.demux import Index, scan
from qvl.engine.media.video import _needed, load_video
from qvl.engine.protocol import Content


@pytest.fixture
def official(monkeypatch):
    def run(data, fps=1.0, max_frames=64, turns=0, **part):
        def reader(element):
            with av.open(io.BytesIO(data)) as file:
                rate = float(file.streams.video[0].average_rate)
                frames = [np.rot90(frame.to_rgb().to_ndarray(), turns) for frame in file.decode(video=0)]
            video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
            # As the readers that know of parts; the whole is torchvision's.
            first, last, total = vision_process.calculate_video_frame_range(element, video.size(0), rate)
            nframes = vision_process.smart_nframes(element, total_frames=total, video_fps=rate)
            idx = torch.linspace(first, last, nframes).round().long()
            return video[idx], {"fps": rate, "frames_indices": idx}, nframes / total * rate

        monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "torchvision")
        monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "torchvision", reader)
        element = {"type": "video", "video": "file.mp4", "fps": fps, "max_frames": max_frames} | part
        messages = [{"role": "user", "content": [element]}]
        _, videos = vision_process.process_vision_info(
            messages, image_patch_size=16, return_video_metadata=True
        )
        video, metadata = videos[0]
        times = Qwen3VLProcessor._calculate_timestamps(None, metadata["frames_indices"], metadata["fps"], 2)
        return video.permute(0, 2, 3, 1).numpy(), tuple(times)

    return run


KINDS = {
    "mp4 h264": {},
    "mp4 h264, a keyframe every 5, B-frames": {"options": {"g": "5", "bf": "2"}},
    "mp4 h264, open groups": {"options": {"x264-params": "keyint=6:min-keyint=6:open-gop=1:bframes=3"}},
    "mp4 h265": {"codec": "libx265", "options": {"x265-params": "keyint=6:open-gop=1:log-level=none"}},
    "mov mpeg4": {"codec": "mpeg4", "format": "mov"},
    "webm vp9": {"codec": "libvpx-vp9", "format": "webm", "options": {"cpu-used": "8", "g": "7"}},
    "webm vp8": {"codec": "libvpx", "format": "webm", "options": {"cpu-used": "8"}},
    "mkv h264": {"format": "matroska", "options": {"g": "8"}},
    "mp4 av1": {"codec": "libsvtav1", "options": {"preset": "13", "g": "8", "svtav1-params": "lp=1"}},
    "avi mjpeg": {"codec": "mjpeg", "format": "avi"},
    "avi mpeg4": {"codec": "mpeg4", "format": "avi"},
    "ts h264": {"format": "mpegts", "options": {"g": "6"}},
    "mpeg": {"codec": "mpeg2video", "format": "mpeg", "rate": 25},
    "flv": {"codec": "flv1", "format": "flv"},
    "fragmented mp4": {"format": "ismv"},
    "wmv": {"codec": "wmv2", "format": "asf"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_containers_and_codecs(kind, one, official, film):
    data = film(**KINDS[kind])
    visual = one(Content(videos=(data,)))
    pixels, times = official(data)
    assert np.array_equal(visual.pixels, pixels)
    assert visual.timestamps == times
    assert visual.kind == "video" and visual.grid[0] == len(times)
    assert list(native(data)) == ["video"]


@pytest.mark.parametrize("atom", [b"free", b"skip", b"wide"])
def test_a_mov_that_begins_with_padding(atom, one, official, film):
    data = film(format="mov", codec="mpeg4")
    padded = data[:4] + atom + data[8:]
    assert np.array_equal(one(Content(videos=(padded,))).pixels, official(data)[0])
    assert list(native(padded)) == ["video"]


def test_an_encoder_does_not_put_the_tests_before_everybody_else(film):
    film(**KINDS["mp4 av1"])
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize(
    ("count", "fps", "max_frames"),
    [(2, None, None), (3, None, None), (7, None, None), (90, None, None), (90, 4.0, None), (90, 4.0, 7),
     (90, 100.0, 10), (30, 10.0, None), (30, 29.97, None), (90, 0.1, None), (150, 10.0, 2)],
)  # fmt: skip
def test_sampling(count, fps, max_frames, one, official, film):
    data = film(count=count, options={"g": "12"})
    visual = one(Content(videos=(data,), fps=fps, max_frames=max_frames))
    pixels, times = official(data, fps or 1, max_frames or 64)
    assert np.array_equal(visual.pixels, pixels)
    assert visual.timestamps == times


PARTS = {
    "#t=1,3": {"video_start": 1.0, "video_end": 3.0},
    "#t=2.05": {"video_start": 2.05},
    "#t=,1.97": {"video_end": 1.97},
    "#t=0:01,1:59:00": {"video_start": 1.0, "video_end": 7140.0},
    "#t=0,0.4": {"video_start": 0.0, "video_end": 0.4},
}


@pytest.mark.parametrize("kind", [*list(KINDS)[1:3], "webm vp8", "avi mjpeg"])
@pytest.mark.parametrize("part", PARTS)
def test_parts(part, kind, one, official, film):
    data = film(count=60, **KINDS[kind])
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}{part}"
    visual = one(Content(videos=(source,), fps=4.0))
    pixels, times = official(data, fps=4.0, **PARTS[part])
    assert np.array_equal(visual.pixels, pixels)
    assert visual.timestamps == times


def test_what_is_longer_than_a_video_may_be_has_parts(film):
    data, limits = film(count=60), Limits(video_seconds=3)
    with pytest.raises(TooLarge, match="#t=0,60"):
        load_video(data, 1.0, 64, limits)
    with pytest.raises(TooLarge, match="3 s"):
        load_video(data, 1.0, 64, limits, Span(1, 5))
    pixels, times = load_video(data, 1.0, 64, limits, Span(3.0, 5.0))
    assert len(pixels) == 4 and 3 < times[0] < times[1] < 5
    with pytest.raises(Unprocessable, match="from 7 to 9 s the film has fewer than 2 frames"):
        load_video(data, 1.0, 64, limits, Span(7.0, 9.0))


@pytest.mark.parametrize("size", [(64, 48), (320, 256), (334, 250), (1280, 720), (48, 1024), (1998, 20)])
def test_sizes(size, one, official, film):
    data = film(count=8, size=size, options={"preset": "ultrafast"})
    visual = one(Content(videos=(data,)))
    pixels, _ = official(data)
    assert np.array_equal(visual.pixels, pixels)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_films_stand_upright(turns, one, official, film):
    """As decord shows them; the reader of this test, like torchvision's, does not, so it is helped."""
    one_, zero, minus = 1 << 16, 0, (1 << 32) - (1 << 16)
    cos, sin = {1: (zero, minus), 2: (minus, zero), 3: (zero, one_)}[turns]
    data = bytearray(film(count=20))
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9I", cos, sin, 0, -sin % (1 << 32), cos, 0, 0, 0, 1 << 30)
    visual = one(Content(videos=(bytes(data),)))
    pixels, _ = official(bytes(data), turns=turns)
    assert np.array_equal(visual.pixels, pixels)


def test_only_the_needed_packets_are_decoded(film):
    """Indices 0 and 29 of 30 frames in groups of 10: one packet of the first group, all of the last."""
    data = film(count=30, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    index = scan(data, container_of(data), Limits())
    shown = sorted(index.pts)
    assert _needed(index, {shown[0], shown[29]}) == {0, *range(20, 30)}
    assert sum(index.keys) == 3


def test_a_frame_shown_before_its_keyframe_needs_the_group_before():
    """Decoding order I0 P3 | I6 B4 B5 P9: 4 and 5 draw on 3 and 6."""
    index = Index((0, 3, 6, 4, 5, 9), (True, False, True, False, False, False), False, 1.0, "h264", 1, 1)
    assert _needed(index, {4}) == {0, 1, 2, 3}
    assert _needed(index, {9}) == {2, 3, 4, 5}
    assert _needed(index, {6}) == {2}


def test_uneven_frame_times(one, official, film):
    data = film(count=40, drop=(3, 4, 17, 30), options={"g": "6"})
    visual = one(Content(videos=(data,)))
    pixels, times = official(data)
    assert np.array_equal(visual.pixels, pixels) and visual.timestamps == times


def test_hidden_frames_are_not_counted(one, official, film):
    """VP8 packets with the show bit off, as encoders write for alternate references."""
    buffer = io.BytesIO()
    whole = film(count=40, codec="libvpx", format="webm", options={"cpu-used": "8"})
    with av.open(io.BytesIO(whole)) as old, av.open(buffer, "w", format="webm") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for place, packet in enumerate(old.demux(video=0)):
            if packet.dts is None:
                continue
            data = bytearray(bytes(packet))
            if place in (5, 12, 13, 31, 39):
                data[0] &= ~0x10
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            new.mux(copy)
    visual = one(Content(videos=(buffer.getvalue(),), fps=5.0))
    pixels, times = official(buffer.getvalue(), 5.0)
    assert np.array_equal(visual.pixels, pixels) and visual.timestamps == times
    assert visual.timestamps[-1] < 3.5


def test_more_frames_asked_than_there_are_is_silent(one, capfd, film):
    assert one(Content(videos=(film(count=6),), fps=60.0)).pixels.shape[0] == 6
    assert capfd.readouterr() == ("", "")


def test_frames_cut_off_by_an_edit_list(one, official, film, remuxed):
    whole = film(count=40, options={"g": "20"})
    data = remuxed(whole, shift=0.75, avoid_negative_ts="disabled")
    visual = one(Content(videos=(data,), fps=5.0))
    pixels, times = official(data, 5.0)
    assert np.array_equal(visual.pixels, pixels) and visual.timestamps == times
    with av.open(io.BytesIO(data)) as file:
        assert sum(packet.is_discard for packet in file.demux(video=0)) > 0
