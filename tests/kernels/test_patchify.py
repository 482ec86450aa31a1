"""patchify: the reference against Hugging Face's processors; the kernel against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from qvl.kernels.patchify import PatchifyConfig, patchify, patchify_ref, patchify_triton

SIZES = [(32, 32), (32, 224), (96, 64), (256, 320), (1024, 32)]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16, "merge_size": 2}
ROUNDING = 1e-6

TOLERANCES = {torch.float32: 2**-23, torch.bfloat16: 0.0, torch.float16: 0.0}
"""Of the kernel. One float32 rounding; all 256 values then round to the same halves."""
INTERPRETED = TOLERANCES | {torch.bfloat16: 2**-8}
"""The interpreter cuts a float32 down to a bfloat16 instead of rounding it."""

GRIDS = {
    "one block": [[1, 2, 2]],
    "odd numbers of blocks": [[1, 6, 10]],
    "a row": [[1, 2, 26]],
    "a column": [[1, 26, 2]],
    "several steps": [[3, 4, 2], [1, 2, 2], [2, 2, 6]],
    "mixed": [[1, 4, 6], [1, 2, 2], [1, 2, 8], [1, 6, 4]],
    "many": [[1, 2 + 2 * (i % 2), 2 + 2 * (i % 3)] for i in range(17)],
}


def frames(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def raw(pixels: np.ndarray, patches: int) -> torch.Tensor:
    return torch.from_numpy(pixels.reshape(patches, -1))


def media(grids: list[list[int]], count: int) -> torch.Tensor:
    return torch.from_numpy(frames((sum(t * h * w for t, h, w in grids), 768 * count), seed=5))


@pytest.mark.parametrize("size", SIZES)
def test_images_equal_the_processor(size: tuple[int, int]) -> None:
    """Which writes a still image's frame twice."""
    image = frames((*size, 3), seed=1)
    processor = Qwen2VLImageProcessor(**HALF, do_resize=False)
    wanted = processor(images=[torch.from_numpy(image).permute(2, 0, 1)], return_tensors="pt")
    grid = wanted["image_grid_thw"].tolist()
    got = patchify_ref(raw(image, size[0] * size[1] // 256), grid, torch.float32)
    twice = got.view(-1, 3, 1, 256).expand(-1, -1, 2, -1).reshape(len(got), -1)
    assert torch.allclose(twice, wanted["pixel_values"], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("size", SIZES[:3])
def test_videos_equal_the_processor(size: tuple[int, int], count: int) -> None:
    video = frames((count, *size, 3), seed=2)
    processor = Qwen3VLVideoProcessor(**HALF, do_resize=False, do_sample_frames=False)
    tensor = torch.from_numpy(video).permute(0, 3, 1, 2)
    wanted = processor(videos=[tensor], return_tensors="pt")
    grid = wanted["video_grid_thw"].tolist()
    got = patchify_ref(raw(video, int(np.prod(grid[0]))), grid, torch.float32)
    assert torch.allclose(got, wanted["pixel_values_videos"], atol=ROUNDING, rtol=0)


def test_media_of_one_call_do_not_mix() -> None:
    grids = GRIDS["mixed"]
    pixels = media(grids, 1)
    parts = torch.split(pixels, [t * h * w for t, h, w in grids])
    apart = [patchify_ref(each, [grid], torch.float32) for each, grid in zip(parts, grids, strict=True)]
    assert torch.equal(patchify_ref(pixels, grids, torch.float32), torch.cat(apart))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("count", [1, 2], ids=["images", "videos"])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_kernel_equals_the_reference(
    launch: Any, grids: list[list[int]], count: int, dtype: torch.dtype
) -> None:
    pixels = media(grids, count)
    got = launch(patchify_triton, pixels, grids, dtype)
    wanted = patchify_ref(pixels, grids, dtype)
    tolerance = (INTERPRETED if launch.device == "interpreter" else TOLERANCES)[dtype]
    assert got.shape == wanted.shape and got.dtype == dtype
    assert (got.double() - wanted.double()).abs().max() <= tolerance


@pytest.mark.parametrize("each", [2, 5])
def test_programs_may_do_several_blocks(launch: Any, each: int) -> None:
    pixels = media(GRIDS["many"], 1)
    config = PatchifyConfig(merge_blocks=each)
    got = launch(patchify_triton, pixels, GRIDS["many"], torch.float16, config=config)
    assert torch.equal(got, patchify_ref(pixels, GRIDS["many"], torch.float16))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("value", "end"), [(0, -1), (255, 1)])
def test_ends_of_the_range(launch: Any, value: int, end: int, dtype: torch.dtype) -> None:
    pixels = torch.full((4, 768), value, dtype=torch.uint8)
    assert (patchify_ref(pixels, [[1, 2, 2]], dtype) == end).all()
    assert (launch(patchify_triton, pixels, [[1, 2, 2]], dtype) == end).all()


@pytest.mark.parametrize("width", [768, 1536])
def test_nothing_is_nothing(launch: Any, width: int) -> None:
    pixels = torch.empty((0, width), dtype=torch.uint8)
    assert launch(patchify_triton, pixels, [], torch.bfloat16).shape == (0, width)
    assert patchify(pixels, [], torch.bfloat16).shape == (0, width)


@pytest.mark.gpu
def test_a_gpus_worth() -> None:
    """Photos and pages, as a step of the engine holds them."""
    grids = [[1, 64, 64], [1, 76, 94], [1, 14, 14], [1, 96, 74]] * 4
    pixels = media(grids, 1)
    got = patchify(pixels.cuda(), grids, torch.bfloat16)
    assert torch.equal(got.cpu(), patchify_ref(pixels, grids, torch.bfloat16))


@pytest.mark.parametrize("op", [patchify_ref, patchify_triton, patchify])
@pytest.mark.parametrize(
    ("shape", "dtype", "grids", "wrong"),
    [
        ((4, 768), torch.uint8, [[1, 2, 4]], "do not hold 4 patches"),
        ((3, 768), torch.uint8, [[1, 1, 3]], "even height and width"),
        ((4, 2304), torch.uint8, [[1, 2, 2]], "must be uint8"),
        ((4, 700), torch.uint8, [[1, 2, 2]], "must be uint8"),
        ((4, 768), torch.float32, [[1, 2, 2]], "must be uint8"),
    ],
)
def test_what_would_be_read_past_its_end(
    op: Any, shape: tuple[int, int], dtype: torch.dtype, grids: list[list[int]], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        op(torch.zeros(shape, dtype=dtype), grids, torch.float32)
