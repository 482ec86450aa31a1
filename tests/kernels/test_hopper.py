"""The kernels compile for sm_90 and use the widest memory accesses there are; no GPU is needed to say so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.hopper import ptx
from tests.kernels.worker import worker

POINTERS = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Types of model dtypes, and their bytes."""
THREADS = 128


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    cache = str(tmp_path_factory.mktemp("triton"))
    with worker(TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache, PYTHONWARNINGS="ignore") as call:
        yield lambda *args: call(ptx, *args)


def accesses(text: str, kind: str) -> Counter[str]:
    """How many accesses of each width a thread makes: ld or st, such as {"v4.b32": 3}."""
    return Counter(re.findall(rf"\b{kind}\.global\.(?:\w+::\w+\.)*(\S+)", text))


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("dtype", POINTERS)
def test_patchify_writes_sixteen_bytes_at_a_time(
    compiler: Callable[..., str], dtype: str, frames: int
) -> None:
    types = {"pixels": "*u8", "table": "*i64", "patches": f"*{dtype}", "media": "i32", "blocks": "i32"}
    text = compiler("patchify", types, {"FRAMES": frames, "EACH": 1}, THREADS // 32)
    each = 4 * 768 * frames // THREADS
    assert accesses(text, "st") == {"v4.b32": each * POINTERS[dtype] // 16}
    assert accesses(text, "ld")["b8"] == each, "each byte is read once"


@pytest.mark.parametrize("dtype", POINTERS)
@pytest.mark.parametrize("op", ["pool", "score"])
def test_last_tokens_are_read_sixteen_bytes_at_a_time(
    compiler: Callable[..., str], op: str, dtype: str
) -> None:
    types: dict[str, Any] = {"hidden": f"*{dtype}", "last": "*i64", "stride": "i32", "width": "i32"}
    types |= {"unit": "*fp32"} if op == "pool" else {"weight": "*fp32", "logits": "*fp32"}
    constants = {"EPS": 1e-12, "TILE": 2048} if op == "pool" else {"TILE": 2048}
    text = compiler(op, types, constants, THREADS // 32)
    reads = 2048 // THREADS * POINTERS[dtype] // 16 + (2048 // THREADS * 4 // 16 if op == "score" else 0)
    assert accesses(text, "ld")["v4.b32"] == reads
    assert accesses(text, "st")["v4.b32"] == (4 if op == "pool" else 0)


def test_files_load_without_triton(tmp_path: Path) -> None:
    """As on a laptop: the reference works."""
    (tmp_path / "triton.py").write_text("raise ImportError('none here')")
    with worker(PYTHONPATH=str(tmp_path)) as call:
        assert call(run_without_triton) == [[-1.0], [1.0]]


def run_without_triton() -> list[list[float]]:
    import torch

    from qvl.kernels.patchify import patchify
    from qvl.kernels.pool import pool
    from qvl.kernels.score import score

    black = patchify(torch.zeros((4, 768), dtype=torch.uint8), [[1, 2, 2]], torch.float32)
    unit = pool(torch.ones((1, 1)), torch.tensor([0]))
    assert score(torch.ones((1, 1)), torch.tensor([0]), torch.ones(1)) == 1
    return [[black.max().item()], [unit.item()]]
