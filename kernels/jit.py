"""Triton where there is one. Where there is none a kernel's file still loads, and its reference works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

try:
    import triton  # type: ignore[import-untyped]  # it has no types
    import triton.language as tl  # type: ignore[import-untyped]  # it has no types
except ImportError:
    triton = tl = None

__all__ = ["jit", "power_of_two", "runs_on", "tl"]


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`triton.jit(**options)`, or a decorator that leaves the function as it is."""
    return triton.jit(**options) if triton is not None else lambda function: function


def runs_on(tensor: torch.Tensor) -> bool:
    """Whether kernels can be launched on the device that holds `tensor`."""
    return triton is not None and tensor.is_cuda


def power_of_two(count: int) -> int:
    """The smallest one that is not below `count`: Triton's tiles have no other sizes."""
    return 1 << max(count - 1, 0).bit_length()
