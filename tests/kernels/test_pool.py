"""pool: the kernel against the reference, the reference against the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qvl.kernels.pool import pool, pool_ref, pool_triton

TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
"""By the hidden states' dtype; arithmetic and answer are float32, only the order of the sum differs."""
WIDTHS = [1, 7, 64, 100, 2048, 2560, 4096]


def states(width: int, dtype: torch.dtype = torch.float32, tokens: int = 37) -> torch.Tensor:
    return torch.randn((tokens, width), generator=torch.Generator().manual_seed(width)).mul(8).to(dtype)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reference_is_the_formula(width: int) -> None:
    hidden = states(width)
    wanted = hidden[[3, 36]].double()
    wanted /= wanted.norm(dim=1, keepdim=True)
    assert (pool_ref(hidden, torch.tensor([3, 36])) - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_kernel_equals_the_reference(launch: Any, width: int, dtype: torch.dtype) -> None:
    hidden, last = states(width, dtype), torch.tensor([0, 5, 5, 36, 17])
    got = launch(pool_triton, hidden, last)
    assert got.shape == (5, width) and got.dtype == torch.float32
    assert (got - pool_ref(hidden, last)).abs().max() <= TOLERANCES[dtype]


@pytest.mark.parametrize("warps", [1, 8])
def test_any_number_of_warps(launch: Any, warps: int) -> None:
    hidden, last = states(2048), torch.tensor([1, 2])
    got = launch(pool_triton, hidden, last, warps=warps)
    assert (got - pool_ref(hidden, last)).abs().max() <= 1e-6


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("view", ["columns", "transposed"])
def test_any_strides_and_indices(launch: Any, view: str, index: torch.dtype) -> None:
    whole = states(64)
    hidden = whole[:, :48] if view == "columns" else whole.T
    last = torch.tensor([4, 0, 9, 9, 30], dtype=index)[::2]
    assert (launch(pool_triton, hidden, last) - pool_ref(hidden, last)).abs().max() <= 1e-6


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, float("inf"), float("nan")])
def test_extremes_end_as_the_references(launch: Any, value: float) -> None:
    hidden, last = states(100), torch.tensor([0, 1])
    hidden[1] = 0.0
    hidden[1, 7] = value
    got, wanted = launch(pool_triton, hidden, last), pool_ref(hidden, last)
    assert torch.allclose(got, wanted, rtol=0, atol=1e-6, equal_nan=True)


def test_nothing_is_nothing(launch: Any) -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert launch(pool_triton, states(64), none).shape == (0, 64)
    assert pool(states(64), none).shape == (0, 64)
