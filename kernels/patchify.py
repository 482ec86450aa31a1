"""uint8 pixels to normalised patches, the vision tower's input.

    y[p, c, k, i, j] = (x[k, row(p) + i, col(p) + j, c] - 127.5) / 127.5        (mean and std 0.5)

A frame of H x W pixels holds (H/16) x (W/16) patches. The tower reads them in *merge order*: 2 x 2
blocks of patches row by row, then the four patches of a block. A patch spans K frames: two of a video,
one of a still image. The tower's patch embedding has weights for two, and a still image is its frame
twice, so that

    sum_k w[o, c, k, i, j] y[p, c, i, j]  =  (w[o, c, 0, i, j] + w[o, c, 1, i, j]) y[p, c, i, j]

and the second copy is never made: half the bytes written, half the FLOPs of the embedding
(`engine/model/patch_embed.py` sums the weights).

Shapes: x is (n, 768 K) uint8: each medium's (K T, H, W, 3) bytes as they lie in memory, one after the
other, `n` the patches of all of them. y is (n, 768 K) in the model's dtype.
Bytes moved: 768 K n read, 768 K n * itemsize written; a 1024 x 1024 photo in bfloat16 3.1 + 6.3 MB, 2.8 us
at an H100's 3.35 TB/s. The stock path (a float tensor of both frames) moves 12.6 MB over PCIe alone.

Access: a program takes a merge block, 32 rows of 96 bytes. Media, rows and blocks start at multiples
of 96 bytes from the first, so each row is three whole 32-byte sectors and none is read for
nothing; a single patch's 48 bytes would be one and a half. A patch is written as runs of 256 values.

Source of the layout: Qwen2VLImageProcessor of transformers (patch 16, temporal 2, merge 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from qvl.kernels.jit import jit, runs_on, tl

if TYPE_CHECKING:
    Grids: TypeAlias = Sequence[Sequence[int]]

PATCH = 16
MERGE = 2
TEMPORAL = 2
CHANNELS = 3
FRAME_BYTES = PATCH * PATCH * CHANNELS
"""uint8 values of one patch in one frame."""


def patchify_ref(pixels: torch.Tensor, grids: Grids, dtype: torch.dtype) -> torch.Tensor:
    """Float32 arithmetic, one medium at a time.

    pixels: (n, 768) of images or (n, 1536) of videos, uint8, see above. grids: [t, h, w] patches of each
    medium, the sum of t * h * w being n. Returns the same shape in `dtype`.
    """
    frames = _frames(pixels, grids)
    out = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    start = 0
    for t, h, w in grids:
        rows = slice(start, start + t * h * w)
        x = pixels[rows].reshape(t, frames, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH, CHANNELS)
        x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).to(torch.float32, memory_format=torch.contiguous_format)
        out[rows] = x.sub_(127.5).div_(127.5).view(t * h * w, -1)
        start += t * h * w
    return out


@dataclass(frozen=True)
class PatchifyConfig:
    """How the work is cut up; no answer depends on it."""

    merge_blocks: int = 1
    """Merge blocks (four patches of each of K frames) that one program does in turn."""
    warps: int = 4


DEFAULT = PatchifyConfig()


@jit(do_not_specialize=["media", "blocks"])
def _kernel(  # type: ignore[no-untyped-def]  # Triton's
    pixels, table, patches, media, blocks, FRAMES: tl.constexpr, EACH: tl.constexpr
):
    """`table` has a row for each medium: its first merge block, its first byte, blocks a row, blocks a frame.

    Sizes below: a patch is 16 x 16 pixels, a merge block 32 x 32, a pixel 3 bytes.
    """
    lane = tl.arange(0, 1024)  # of one channel of a block: patch of the block, row and column in the patch
    y = lane // 512 * 16 + lane // 16 % 16
    x = lane // 256 % 2 * 16 + lane % 16
    target = lane // 256 * (768 * FRAMES) + lane % 256
    for turn in range(EACH):
        block = tl.program_id(0).to(tl.int64) * EACH + turn
        if block < blocks:
            low = tl.full((), 0, tl.int32)
            high = tl.full((), 0, tl.int32) + media
            while high - low > 1:  # the block's medium is in [low, high)
                middle = (low + high) // 2
                before = tl.load(table + middle * 4) <= block
                low = tl.where(before, middle, low)
                high = tl.where(before, high, middle)
            row = table + low * 4
            inside = block - tl.load(row)
            across, area = tl.load(row + 2), tl.load(row + 3)
            step, inside = inside // area, inside % area
            source = tl.load(row + 1) + step * FRAMES * area * 3072
            source += inside // across * across * 3072 + inside % across * 96
            offsets = y * across * 96 + x * 3
            for frame in tl.static_range(FRAMES):
                for channel in tl.static_range(3):
                    value = tl.load(pixels + source + frame * area * 3072 + channel + offsets)
                    value = (value.to(tl.float32) - 127.5) * (1 / 127.5)
                    plane = patches + block * (3072 * FRAMES) + (channel * FRAMES + frame) * 256
                    tl.store(plane + target, value.to(patches.dtype.element_ty))


def patchify_triton(
    pixels: torch.Tensor, grids: Grids, dtype: torch.dtype, config: PatchifyConfig = DEFAULT
) -> torch.Tensor:
    """As `patchify_ref`, in one launch."""
    frames = _frames(pixels, grids)
    patches = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    blocks = len(pixels) // MERGE**2
    if not blocks:
        return patches
    # From pinned memory, or the copy could wait for all that the stream has before it.
    table = torch.tensor(_table(grids, frames), device="cpu", pin_memory=pixels.is_cuda)
    table = table.to(pixels.device, non_blocking=True)
    programs = -(-blocks // config.merge_blocks)
    _kernel[(programs,)](
        pixels.contiguous(),
        table,
        patches,
        len(grids),
        blocks,
        FRAMES=frames,
        EACH=config.merge_blocks,
        num_warps=config.warps,
    )
    return patches


def patchify(pixels: torch.Tensor, grids: Grids, dtype: torch.dtype) -> torch.Tensor:
    """(n, 768) of still images or (n, 1536) of videos, uint8, to normalised patches of that shape.

    grids: [t, h, w] patches of each medium, h and w even, the sum of t * h * w being n.
    """
    op = patchify_triton if runs_on(pixels) else patchify_ref
    return op(pixels, grids, dtype)


def _frames(pixels: torch.Tensor, grids: Grids) -> int:
    """K. Raises ValueError for what a kernel would read past the end of."""
    frames, rest = divmod(pixels.shape[1], FRAME_BYTES)
    if rest or not 1 <= frames <= TEMPORAL or pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 (n, 768) or (n, 1536), not {pixels.dtype} {pixels.shape}")
    if any(h % MERGE or w % MERGE for _, h, w in grids):
        raise ValueError(f"grids must be of even height and width in patches: {grids}")
    if sum(t * h * w for t, h, w in grids) != len(pixels):
        raise ValueError(f"grids {grids} do not hold {len(pixels)} patches")
    return frames


def _table(grids: Grids, frames: int) -> list[list[int]]:
    rows, block = [], 0
    for t, h, w in grids:
        across, area = w // MERGE, h * w // MERGE**2
        rows.append([block, block * MERGE**2 * FRAME_BYTES * frames, across, area])
        block += t * area
    return rows
