"""Videos given as lists of images, against qwen_vl_utils run as the reference runs it."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from qvl.engine.media.frames import resize_frame
from qvl.engine.protocol import Content


def official(frames: list[bytes], max_frames: int = 64):
    if len(frames) > max_frames:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, max_frames, dtype=int)]
    images = [Image.open(io.BytesIO(frame)) for frame in frames]
    messages = [
        {"role": "user", "content": [{"type": "video", "video": images, "total_pixels": 10 * 768 * 32 * 32}]}
    ]
    _, videos, _ = process_vision_info(
        messages, image_patch_size=16, return_video_metadata=True, return_video_kwargs=True
    )
    video, metadata = videos[0]
    times = Qwen3VLProcessor._calculate_timestamps(None, metadata["frames_indices"], metadata["fps"], 2)
    return video.permute(0, 2, 3, 1).numpy(), times


def same(visual, frames, max_frames=64):
    expected, times = official(frames, max_frames)
    assert visual.kind == "video" and visual.pixels.dtype == np.uint8
    assert np.array_equal(visual.pixels, expected)
    assert visual.timestamps == tuple(times)
    t, h, w = visual.grid
    assert (2 * t, 16 * h, 16 * w, 3) == expected.shape
    assert visual.tokens == t * h * w // 4


SIZES = [(32, 32), (320, 256), (333, 251), (512, 448), (90, 700), (1999, 20)]


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_sizes_and_counts(width, height, count, one, picture, encoded):
    frames = [encoded(picture(width, height, seed=seed)) for seed in range(count)]
    same(one(Content(videos=(tuple(frames),))), frames)


@pytest.mark.parametrize(("count", "max_frames"), [(63, None), (64, None), (65, 9), (130, 64), (20, 7)])
def test_long_lists_are_sampled_to_64_whatever_the_item_says(count, max_frames, one, picture, encoded):
    frames = [encoded(picture(70, 50, seed=seed)) for seed in range(count)]
    same(one(Content(videos=(tuple(frames),), max_frames=max_frames)), frames)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK"])
def test_modes(mode, one, picture, encoded):
    frames = [encoded(picture(100, 80, mode, seed), "TIFF") for seed in range(3)]
    same(one(Content(videos=(tuple(frames),))), frames)


def test_a_frame_above_the_most_pixels(one, picture, encoded):
    frames = [encoded(picture(1280, 720, seed=seed)) for seed in range(3)]
    same(one(Content(videos=(tuple(frames),))), frames)


def test_many_frames_share_a_budget(one, picture, encoded):
    frames = [encoded(picture(900, 700, seed=seed), "JPEG") for seed in range(20)]
    same(one(Content(videos=(tuple(frames),))), frames)


def test_frames_that_round_to_one_size_may_differ(one, picture, encoded):
    frames = [encoded(picture(320 + extra, 256, seed=extra)) for extra in range(4)]
    same(one(Content(videos=(tuple(frames),))), frames)


def test_frames_of_different_sizes_are_refused(refusal, picture, encoded):
    frames = (encoded(picture(320, 256)), encoded(picture(160, 256)))
    error = refusal(Content(videos=(frames,), where="input[2]"))
    assert (error.status, error.code, error.param) == (422, "frame_sizes", "input[2].video")
    assert "frame 1" in error.message


def test_a_bad_frame_is_named(refusal, picture, encoded):
    good = encoded(picture(64, 64))
    error = refusal(Content(videos=((good,), (good, b"text", good)), where="input[0]"))
    assert (error.status, error.param) == (415, "input[0].video[1].frames[1]")


def test_an_empty_list_is_no_video(load, picture, encoded):
    image = encoded(picture(64, 64))
    (visuals, nothing) = load(Content(videos=((),), images=(image,)), Content(videos=((),)))
    assert [visual.kind for visual in visuals] == ["image"] and nothing == ()


def test_a_gif_frame_by_data_url(one, picture, encoded):
    frames = [encoded(picture(64, 64, seed=seed), "GIF") for seed in range(2)]
    urls = tuple("data:image/gif;base64," + base64.b64encode(frame).decode() for frame in frames)
    same(one(Content(videos=(urls,))), frames)


def test_a_frame_that_nobody_may_write_to_is_resized_without_a_word() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    wanted = resize_frame(frame.copy(), 64, 32)
    frame.flags.writeable = False
    assert np.array_equal(resize_frame(frame, 64, 32), wanted)
