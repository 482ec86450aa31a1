"""Hidden states to sentence vectors: the last token of each sequence, made a unit vector.

    y[s] = h[last[s]] / max(||h[last[s]]||, 1e-12)

Shapes: h is (tokens, d) in any float dtype, last (s,) integers, y (s, d) float32.
Bytes moved: s * d * (itemsize + 4); 1024 sequences of a 2B model 12.6 MB, 3.8 us at 3.35 TB/s. Eager torch
gathers, casts, takes the norm, clamps, expands and divides: six launches and four times the bytes.

Matryoshka widths and output dtypes stay out on purpose: the cut of a unit vector, normalised again, is the
same vector, and rows of one width and dtype leave the device in one copy.
"""

from __future__ import annotations

import torch

from qvl.kernels.jit import jit, power_of_two, runs_on, tl

EPSILON = 1e-12


def pool_ref(hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Float32. A row of zeros stays one, a row with a NaN is all NaN."""
    return torch.nn.functional.normalize(hidden[last].float(), p=2, dim=-1, eps=EPSILON)


@jit()
def _kernel(hidden, last, unit, stride, width, EPS: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton's
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, TILE)
    inside = lane < width
    token = tl.load(last + row).to(tl.int64)
    h = tl.load(hidden + token * stride + lane, mask=inside, other=0.0).to(tl.float32)
    norm = tl.maximum(tl.sqrt(tl.sum(h * h, axis=0)), EPS, propagate_nan=tl.PropagateNan.ALL)
    tl.store(unit + row * width + lane, h / norm, mask=inside)


def pool_triton(hidden: torch.Tensor, last: torch.Tensor, warps: int = 4) -> torch.Tensor:
    """As `pool_ref`, in one launch of a program a sequence."""
    width = hidden.shape[1]
    unit = torch.empty((len(last), width), dtype=torch.float32, device=hidden.device)
    if unit.numel():
        hidden = hidden if hidden.stride(1) == 1 else hidden.contiguous()
        _kernel[(len(last),)](
            hidden,
            last.contiguous(),
            unit,
            hidden.stride(0),
            width,
            EPS=EPSILON,
            TILE=power_of_two(width),
            num_warps=warps,
        )
    return unit


def pool(hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """(tokens, d) hidden states and the (s,) indices of last tokens to (s, d) unit vectors, float32."""
    op = pool_triton if runs_on(hidden) else pool_ref
    return op(hidden, last)
