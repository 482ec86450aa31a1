"""Hidden states to relevance: the last token of each sequence against the direction of "yes".

    y[s] = sum_i h[last[s], i] w[i]        w = W[yes] - W[no], the two rows of lm_head

The difference of two logits is the logit of P(yes) among the two. The sigmoid is left to whoever answers:
float32 keeps the order of scores that it would round to one.

Shapes: h is (tokens, d) in any float dtype, last (s,) integers, w (d,) float32, y (s,) float32.
Bytes moved: s * d * itemsize + 4 d (w stays in the caches); 1024 sequences of a 2B model 4.2 MB, 1.3 us at
3.35 TB/s. Eager torch gathers, casts and multiplies: three launches, five times the bytes.
"""

from __future__ import annotations

import torch

from qvl.kernels.jit import jit, power_of_two, runs_on, tl


def score_ref(hidden: torch.Tensor, last: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Float32."""
    return hidden[last].float() @ weight.float()


@jit()
def _kernel(hidden, last, weight, logits, stride, width, TILE: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton's
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, TILE)
    inside = lane < width
    token = tl.load(last + row).to(tl.int64)
    h = tl.load(hidden + token * stride + lane, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + lane, mask=inside, other=0.0).to(tl.float32)
    tl.store(logits + row, tl.sum(h * w, axis=0))


def score_triton(
    hidden: torch.Tensor, last: torch.Tensor, weight: torch.Tensor, warps: int = 4
) -> torch.Tensor:
    """As `score_ref`, in one launch of a program a sequence."""
    logits = torch.zeros(len(last), dtype=torch.float32, device=hidden.device)
    if hidden.shape[1] != len(weight):
        raise ValueError(f"hidden states of width {hidden.shape[1]} against a weight of {len(weight)}")
    if len(last):
        hidden = hidden if hidden.stride(1) == 1 else hidden.contiguous()
        _kernel[(len(last),)](
            hidden,
            last.contiguous(),
            weight.contiguous(),
            logits,
            hidden.stride(0),
            len(weight),
            TILE=power_of_two(len(weight)),
            num_warps=warps,
        )
    return logits


def score(hidden: torch.Tensor, last: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(tokens, d) hidden states, (s,) indices of last tokens and a (d,) direction to (s,) logits, float32."""
    op = score_triton if runs_on(hidden) else score_ref
    return op(hidden, last, weight)
