"""The end of the decoder, cut out and done for the last tokens: the same rows, and when it stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qvl.engine.model.tail import Tail

WIDTH, LAYERS = 16, 4


class Norm(torch.nn.Module):
    """vLLM's RMSNorm: given a residual it adds first, and returns the sum too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(WIDTH))

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        total = hidden if residual is None else hidden + residual
        normed = torch.nn.functional.rms_norm(total, (WIDTH,), self.weight)
        return normed if residual is None else (normed, total)


class Layer(torch.nn.Module):
    """vLLM's decoder layer: something for attention, then norm and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.Linear(WIDTH, WIDTH)
        self.post_attention_layernorm = Norm()
        self.mlp = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.SiLU())

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = self.post_attention_layernorm(self.attention(hidden), residual)
        return self.mlp(hidden), residual


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = torch.zeros_like(hidden)
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        final: torch.Tensor = self.norm(hidden, residual)[0]
        return final


def settings(visual: int = 3, lora: object = None, stages: int = 1) -> Any:
    vision = SimpleNamespace(deepstack_visual_indexes=list(range(visual)))
    return SimpleNamespace(
        model_config=SimpleNamespace(hf_config=SimpleNamespace(vision_config=vision)),
        lora_config=lora,
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
    )


@torch.inference_mode()
def test_the_rows_are_those_of_the_whole_decoder() -> None:
    torch.manual_seed(0)
    decoder, hidden, last = Decoder(), torch.randn(20, WIDTH), torch.tensor([3, 4, 19])
    expected = decoder(hidden)[last]
    tail = Tail.cut(decoder, settings())
    assert tail is not None
    left = decoder(hidden)
    assert not torch.allclose(left[last], expected)
    torch.testing.assert_close(tail(left[last]), expected)


def test_every_weight_is_still_there_once() -> None:
    decoder = Decoder()
    before = set(decoder.parameters())
    tail = Tail.cut(decoder, settings())
    assert tail is not None
    after = [*decoder.parameters(), *tail.parameters()]
    assert (set(after), len(after)) == (before, len(before))


@pytest.mark.parametrize("which", [{"lora": object()}, {"stages": 2}, {"visual": LAYERS}])
@torch.inference_mode()
def test_what_needs_every_token_stays_whole(which: dict[str, Any]) -> None:
    decoder, hidden = Decoder(), torch.randn(5, WIDTH)
    expected = decoder(hidden)
    assert Tail.cut(decoder, settings(**which)) is None
    assert torch.equal(decoder(hidden), expected)
