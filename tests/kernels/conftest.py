"""Where a kernel's cases run: in Triton's interpreter everywhere, and on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from tests.kernels.worker import worker


class Launch:
    """`launch(op, *args, **kwargs)`: the op's result, on the CPU. `launch.device` is where it ran."""

    def __init__(self, device: str, call: Callable[..., Any]) -> None:
        self.device = device
        self._call = call

    def __call__(self, op: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = self._call(op, *args, **kwargs)
        return result


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Launch]:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    with worker(TRITON_INTERPRET="1", PYTHONWARNINGS="ignore") as call:
        yield Launch("interpreter", call)


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def launch(request: pytest.FixtureRequest) -> Launch:
    if request.param == "cuda":
        return Launch("cuda", on_cuda)
    interpreted: Launch = request.getfixturevalue("interpreter")
    return interpreted


def on_cuda(op: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    moved = [each.cuda() if isinstance(each, torch.Tensor) else each for each in args]
    return op(*moved, **kwargs).cpu()
