"""The fold: patches of one frame by summed weights equal the convolution over the frame twice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from qvl.engine.model.patch_embed import FoldingPatchEmbed, fold
from qvl.kernels.patchify import patchify

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Of values of about 1; the summed weight is rounded to its dtype once, as the answer is."""
HIDDEN = 24


def stock(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """vLLM's module, as far as it is looked at."""
    proj = torch.nn.Conv3d(3, HIDDEN, (2, 16, 16), (2, 16, 16)).to(dtype).requires_grad_(False)
    return SimpleNamespace(proj=proj, patch_size=16, temporal_patch_size=2, hidden_size=HIDDEN)


def convolved(embed: FoldingPatchEmbed, pairs: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = embed.proj(pairs.view(-1, 3, 2, 16, 16)).view(-1, HIDDEN)
    return result


def patches(dtype: torch.dtype, frames: int) -> torch.Tensor:
    pixels = torch.randint(0, 256, (24, 768 * frames), generator=torch.Generator().manual_seed(1))
    return patchify(pixels.to(torch.uint8), [[1, 4, 6]], dtype)


def twice(one: torch.Tensor) -> torch.Tensor:
    return one.view(-1, 3, 1, 256).expand(-1, -1, 2, -1).reshape(len(one), -1)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_still_image_is_its_frame_twice(dtype: torch.dtype) -> None:
    embed, one = FoldingPatchEmbed(stock(dtype)), patches(dtype, 1)
    error = (embed(one).float() - convolved(embed, twice(one)).float()).abs().max()
    assert error <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_two_frames_go_the_stock_way(dtype: torch.dtype) -> None:
    embed, pairs = FoldingPatchEmbed(stock(dtype)), patches(dtype, 2)
    error = (embed(pairs).float() - convolved(embed, pairs).float()).abs().max()
    assert error <= TOLERANCES[dtype]


def test_weights_are_summed_in_float32() -> None:
    weight = torch.zeros((1, 3, 2, 16, 16), dtype=torch.float16)
    weight[:, :, 0], weight[:, :, 1] = 40_000, -39_936
    assert (fold(weight) == 64).all() and fold(weight).dtype == torch.float16


def test_other_temporal_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="of 3 frames"):
        fold(torch.zeros((1, 3, 3, 16, 16)))


def test_names_of_the_checkpoint_stay() -> None:
    embed = FoldingPatchEmbed(stock())
    embed(patches(torch.float32, 1))
    assert list(embed.state_dict()) == ["proj.weight", "proj.bias"]


def test_weights_may_be_loaded_again() -> None:
    embed, one = FoldingPatchEmbed(stock()), patches(torch.float32, 1)
    embed(one)
    embed.proj.weight.data.mul_(3)
    embed.refold()
    assert (embed(one) - convolved(embed, twice(one))).abs().max() <= TOLERANCES[torch.float32]
