"""Activation-aware scales (AWQ, arXiv:2306.00978): which input channels keep more of four bits' precision.

A channel of a matrix is multiplied by s before rounding, and the operation before it divides by s, so that
nothing but the rounding changes. s is the channel's mean size in real prompts to some power, the power with
the least error of the layer's output. A value projection's heads are shared among the output projection's, so
there is no such pair there, and it is rounded as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qvl.engine.quantize.schemes import rounded

STEPS = 20
_ROWS = 1024
"""Inputs of a layer that are kept for the search."""


@dataclass(frozen=True)
class Site:
    """Matrices that read the same input, and what makes that input."""

    before: torch.nn.Module
    """A norm, or a projection; its output channels are theirs to read."""
    readers: tuple[torch.nn.Linear, ...]


def sites(layer: Any) -> Iterator[Site]:
    attention, mlp = layer.self_attn, layer.mlp
    yield Site(layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj))
    yield Site(layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))
    yield Site(mlp.up_proj, (mlp.down_proj,))


def scale(model: Any, run: Callable[[], None], report: Callable[[], None]) -> None:
    """Change the text layers' weights in place; `run` puts the examples through the model once."""
    found = [site for layer in model.model.language_model.layers for site in sites(layer)]
    seen = _inputs([site.readers[0] for site in found], run)
    with torch.inference_mode():
        for site, inputs in zip(found, seen, strict=True):
            _apply(site, _best(site, inputs))
            report()


def _inputs(modules: Sequence[torch.nn.Module], run: Callable[[], None]) -> list[torch.Tensor]:
    """(rows, channels) of each module's inputs, evenly from all prompts."""
    kept: list[list[torch.Tensor]] = [[] for _ in modules]

    def keep(rows: list[torch.Tensor]) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        return lambda _, given: rows.append(
            given[0].detach().flatten(0, -2)[:: max(1, given[0].shape[-2] // 16)].clone()  # not a view of all
        )

    hooks = [module.register_forward_pre_hook(keep(rows)) for module, rows in zip(modules, kept, strict=True)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [_evenly(rows) for rows in kept]


def _evenly(rows: list[torch.Tensor]) -> torch.Tensor:
    """(rows, channels) in float32, of which there are few; the list is emptied."""
    joined = torch.cat(rows)
    rows.clear()
    return joined[:: -(-len(joined) // _ROWS)].to(torch.float32, copy=True)


def _best(site: Site, inputs: torch.Tensor) -> torch.Tensor:
    """(channels,)."""
    size = inputs.abs().mean(0)
    tried = []
    for step in range(STEPS):
        factor = size.pow(step / STEPS).clamp(min=1e-4)
        factor = factor / (factor.max() * factor.min()).sqrt()
        tried.append((sum(_error(each.weight.float(), factor, inputs) for each in site.readers), factor))
    return min(tried, key=lambda each: each[0])[1]


def _error(weight: torch.Tensor, factor: torch.Tensor, inputs: torch.Tensor) -> float:
    off = rounded(weight * factor, "awq") / factor - weight
    return float((inputs @ off.T).square().sum())


def _apply(site: Site, factor: torch.Tensor) -> None:
    made = site.before.weight
    assert isinstance(made, torch.Tensor)
    made.data = made.data / (factor if made.ndim == 1 else factor[:, None]).to(made.dtype)
    for each in site.readers:
        each.weight.data = each.weight.data * factor.to(each.weight.dtype)
