"""score: the kernel against the reference, the reference against the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qvl.kernels.score import score, score_ref, score_triton

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}
"""By the hidden states' dtype, relative to |h| |w|: arithmetic is float32, the order of the sum differs."""
WIDTHS = [1, 7, 64, 100, 2048, 2560, 4096]


def inputs(width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(width)
    hidden = torch.randn((37, width), generator=generator).mul(8).to(dtype)
    return hidden, torch.randn(width, generator=generator)


def scale(hidden: torch.Tensor, weight: torch.Tensor) -> float:
    return float(hidden.float().norm(dim=1).max() * weight.norm())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reference_is_the_formula(width: int) -> None:
    hidden, weight = inputs(width)
    wanted = hidden[[3, 36]].double() @ weight.double()
    assert (score_ref(hidden, torch.tensor([3, 36]), weight) - wanted).abs().max() <= 2e-6 * scale(
        hidden, weight
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_kernel_equals_the_reference(launch: Any, width: int, dtype: torch.dtype) -> None:
    (hidden, weight), last = inputs(width, dtype), torch.tensor([0, 5, 5, 36, 17])
    got = launch(score_triton, hidden, last, weight)
    assert got.shape == (5,) and got.dtype == torch.float32
    error = (got - score_ref(hidden, last, weight)).abs().max()
    assert error <= TOLERANCES[dtype] * scale(hidden, weight)


@pytest.mark.parametrize("warps", [1, 8])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_any_warps_strides_and_indices(launch: Any, warps: int, index: torch.dtype) -> None:
    hidden, weight = inputs(64)
    hidden, weight = hidden[:, :48], weight[:48]
    last = torch.tensor([4, 0, 9, 9, 30], dtype=index)[::2]
    got = launch(score_triton, hidden, last, weight, warps=warps)
    assert (got - score_ref(hidden, last, weight)).abs().max() <= 2e-6 * scale(hidden, weight)


@pytest.mark.parametrize("value", [0.0, 1e30, float("inf"), float("nan")])
def test_extremes_end_as_the_references(launch: Any, value: float) -> None:
    (hidden, weight), last = inputs(100), torch.tensor([0, 1])
    hidden[1, 7] = value
    got, wanted = launch(score_triton, hidden, last, weight), score_ref(hidden, last, weight)
    assert torch.allclose(got, wanted, rtol=2e-6, atol=1e-3, equal_nan=True)


def test_nothing_is_nothing(launch: Any) -> None:
    hidden, weight = inputs(64)
    none = torch.empty(0, dtype=torch.int64)
    assert launch(score_triton, hidden, none, weight).shape == (0,)
    assert score(hidden, none, weight).shape == (0,)


def test_widths_that_differ() -> None:
    hidden, weight = inputs(64)
    with pytest.raises(ValueError, match="width 64 against a weight of 63"):
        score_triton(hidden, torch.tensor([0]), weight[:63])
