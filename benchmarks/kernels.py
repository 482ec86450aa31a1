"""Our kernels beside eager torch, torch.compile and what the memory allows. Needs a CUDA GPU.

    python -m benchmarks.kernels            # prints a table, adds rows to results/kernels/DATE.jsonl
    python -m benchmarks.kernels --sweep    # the same, and every launch configuration

A time is the GPU's, L2 flushed before each call (median of many); `host` is what a call costs the
engine's thread. The limit is the op's bytes at the bandwidth that a large copy reaches on this GPU.
A contestant whose answer is further from the float32 reference than its dtype allows is void.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import rows
from qvl.kernels.patchify import PatchifyConfig, patchify_ref, patchify_triton
from qvl.kernels.pool import pool_ref, pool_triton
from qvl.kernels.score import score_ref, score_triton

Run: TypeAlias = Callable[[], torch.Tensor]

OURS = "qvl"
DTYPE = torch.bfloat16
TOLERANCES = {"patchify": 2**-8, "patch embedding": 2e-2, "pool": 1e-5, "score": 1e-5}
"""Relative to the reference's largest number."""
WARPS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Case:
    """One op on one shape. All contestants give the same tensor."""

    op: str
    shape: str
    reference: Run
    contestants: dict[str, Run]
    bytes: int
    """That any contestant has to move."""
    flops: int = 0


@dataclass(frozen=True)
class KernelRow:
    op: str
    shape: str
    dtype: str
    contestant: str
    p50_us: float
    p20_us: float
    p80_us: float
    host_us: float
    gb_per_s: float
    tflop_per_s: float
    limit_us: float
    max_error: float
    void: str | None
    hardware: str = field(default_factory=lambda: rows.hardware(True))
    versions: dict[str, str] = field(default_factory=lambda: rows.versions() | {"triton": version("triton")})
    commit: str = field(default_factory=rows.commit)
    date: str = ""


def cases(device: torch.device, sweep: bool) -> Iterator[Case]:
    photo, page, thumb = [1, 64, 64], [1, 108, 76], [1, 14, 14]
    yield patchify_case(device, "a 1024² photo", [photo], 1, sweep)
    yield patchify_case(device, "16 of mixed sizes", [photo, page, thumb, thumb] * 4, 1, sweep)
    yield patchify_case(device, "a video of 16 frames, 448²", [[8, 28, 28]], 2, sweep)
    for patches, hidden in ((4096, 1024), (16384, 1152)):
        yield embedding_case(device, patches, hidden)
    for sequences, width in ((1, 2048), (64, 2048), (1024, 2048), (1024, 4096)):
        yield from last_token_cases(device, sequences, width, sweep)


def patchify_case(device: torch.device, shape: str, grids: list[list[int]], frames: int, sweep: bool) -> Case:
    n = sum(t * h * w for t, h, w in grids)
    pixels = torch.randint(0, 256, (n, 768 * frames), dtype=torch.uint8, device=device)
    compiled = torch.compile(patchify_ref)
    contestants: dict[str, Run] = {
        OURS: lambda: patchify_triton(pixels, grids, DTYPE),
        "torch": lambda: patchify_ref(pixels, grids, DTYPE),
        "torch.compile": lambda: compiled(pixels, grids, DTYPE),
    }
    for blocks, warps in product((1, 2, 4), WARPS) if sweep else ():
        config = PatchifyConfig(merge_blocks=blocks, warps=warps)
        contestants[f"{OURS} {config}"] = partial(patchify_triton, pixels, grids, DTYPE, config)
    return Case(
        "patchify",
        shape,
        lambda: patchify_ref(pixels, grids, torch.float32),
        contestants,
        pixels.numel() * (1 + DTYPE.itemsize),
    )


def embedding_case(device: torch.device, n: int, hidden: int) -> Case:
    """Patches of one frame by summed weights, beside the frame twice by the stock convolution's product."""
    weight = torch.randn((hidden, 3, 2, 256), device=device) * 0.02
    one = torch.rand((n, 3, 1, 256), device=device).mul(2).sub(1)
    folded = weight.sum(2).flatten(1).to(DTYPE)
    x, pairs = one.flatten(1).to(DTYPE), one.expand(-1, -1, 2, -1).reshape(n, -1).to(DTYPE)
    stock = weight.flatten(1).to(DTYPE)
    return Case(
        "patch embedding",
        f"{n} patches to {hidden}",
        lambda: pairs.float() @ weight.flatten(1).T,
        {OURS: lambda: x @ folded.T, "vLLM": lambda: pairs @ stock.T},
        (x.numel() + folded.numel() + n * hidden) * DTYPE.itemsize,
        2 * n * 768 * hidden,
    )


def last_token_cases(device: torch.device, sequences: int, width: int, sweep: bool) -> Iterator[Case]:
    hidden = torch.randn((max(8192, sequences), width), device=device).to(DTYPE)
    last = torch.randperm(len(hidden), device=device)[:sequences].sort().values
    weight = torch.randn(width, device=device)
    shape, read = f"{sequences} of {width}", sequences * width * DTYPE.itemsize
    fast_pool, fast_score = torch.compile(pool_ref), torch.compile(score_ref)
    pools: dict[str, Run] = {
        OURS: lambda: pool_triton(hidden, last),
        "torch": lambda: pool_ref(hidden, last),
        "torch.compile": lambda: fast_pool(hidden, last),
    }
    scores: dict[str, Run] = {
        OURS: lambda: score_triton(hidden, last, weight),
        "torch": lambda: score_ref(hidden, last, weight),
        "torch.compile": lambda: fast_score(hidden, last, weight),
    }
    for warps in WARPS if sweep else ():
        pools[f"{OURS} {warps=}"] = partial(pool_triton, hidden, last, warps)
        scores[f"{OURS} {warps=}"] = partial(score_triton, hidden, last, weight, warps)
    yield Case("pool", shape, lambda: pool_ref(hidden, last), pools, read + sequences * width * 4)
    yield Case("score", shape, lambda: score_ref(hidden, last, weight), scores, read + width * 4)


def measure(case: Case, bandwidth: float, date: str) -> Iterator[KernelRow]:
    """`bandwidth` in bytes per second."""
    wanted = case.reference().float()
    for name, run in case.contestants.items():
        error = float((run().float() - wanted).abs().max() / wanted.abs().max())
        allowed = TOLERANCES[case.op]
        p50, p20, p80 = device_us(run)
        yield KernelRow(
            op=case.op,
            shape=case.shape,
            dtype=str(DTYPE).removeprefix("torch."),
            contestant=name,
            p50_us=p50,
            p20_us=p20,
            p80_us=p80,
            host_us=host_us(run),
            gb_per_s=case.bytes / p50 / 1e3,
            tflop_per_s=case.flops / p50 / 1e6,
            limit_us=case.bytes / bandwidth * 1e6,
            max_error=error,
            void=None if error <= allowed else f"differs by {error:.1e}, {allowed:.1e} is allowed",
            date=date,
        )


def device_us(run: Run) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile."""
    from triton.testing import do_bench  # type: ignore[import-untyped]  # it has no types

    p50, p20, p80 = do_bench(run, quantiles=[0.5, 0.2, 0.8])
    return p50 * 1e3, p20 * 1e3, p80 * 1e3


def host_us(run: Run, times: int = 100) -> float:
    """Of the calling thread, the GPU never waited for."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        run()
    took = time.perf_counter() - start
    torch.cuda.synchronize()
    return took / times * 1e6


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of copying a gigabyte."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    p50, _, _ = device_us(lambda: target.copy_(source))
    return 2 * source.numel() / (p50 / 1e6)


def table(measured: list[KernelRow]) -> Table:
    out = Table("op", "shape", "contestant", "µs", "host µs", "GB/s", "TFLOP/s", "of the limit", "")
    for row in measured:
        out.add_row(
            row.op,
            row.shape,
            row.contestant,
            f"{row.p50_us:.1f}",
            f"{row.host_us:.0f}",
            f"{row.gb_per_s:.0f}",
            f"{row.tflop_per_s:.0f}" if row.tflop_per_s else "",
            f"{row.limit_us / row.p50_us:.0%}",
            row.void or "",
        )
    return out


def main() -> int:
    date = rows.now()
    parser = ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--sweep", action="store_true", help="every launch configuration")
    parser.add_argument("--out", type=Path, default=rows.RESULTS / "kernels" / f"{date[:10]}.jsonl")
    asked = parser.parse_args()
    console = Console()
    if not torch.cuda.is_available():
        console.print("benchmarks.kernels: there is no CUDA GPU here; nothing was measured")
        return 0
    device = torch.device("cuda")
    bandwidth = copy_bandwidth(device)
    console.print(f"{rows.hardware(True)}: a copy moves {bandwidth / 1e9:.0f} GB/s")
    measured = []
    for case in cases(device, asked.sweep):
        for row in measure(case, bandwidth, date):
            rows.append(asked.out, [row])  # at once: a case that fails must not lose the others
            measured.append(row)
    console.print(table(measured))
    return 0 if not any(row.void for row in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
