"""What follows the last attention, for the tokens that answer alone.

Only the last token of a sequence is pooled, and from the last layer's attention on nothing passes between
tokens. So its MLP and the final norm are done for one row a sequence instead of every token: by
count, 2.7 % less matrix work in the language model of a 2B, 2.2 % in an 8B's, for the same answers.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from vllm.config import VllmConfig


class Tail(torch.nn.Module):
    """The end of a Qwen3 decoder, taken out of it once its weights are loaded."""

    def __init__(self, norm: torch.nn.Module, mlp: torch.nn.Module, final: torch.nn.Module) -> None:
        super().__init__()
        self.norm, self.mlp, self.final = norm, mlp, final

    @classmethod
    def cut(cls, decoder: Any, vllm_config: VllmConfig) -> Self | None:
        """Leaves `decoder` (vLLM's `Qwen3LLMModel`) to return the sum that this takes; None: all is left.

        Adapters are applied by the place of a token in the batch, so their MLPs need every token. A decoder
        whose last layers take visual features, or which is spread over stages, does not end here.
        """
        visual = len(vllm_config.model_config.hf_config.vision_config.deepstack_visual_indexes)
        stages = vllm_config.parallel_config.pipeline_parallel_size
        if vllm_config.lora_config or stages > 1 or len(decoder.layers) <= visual:
            return None
        last = decoder.layers[-1]
        tail = cls(last.post_attention_layernorm, last.mlp, decoder.norm)
        last.post_attention_layernorm, last.mlp, decoder.norm = _Sum(), torch.nn.Identity(), _First()
        return tail

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(sequences, hidden) sums after the last attention to final hidden states."""
        hidden: torch.Tensor = self.final(self.mlp(self.norm(rows)), rows)[0]
        return hidden


class _Sum(torch.nn.Module):
    """In place of a norm that adds first."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = hidden + residual
        return total, total


class _First(torch.nn.Module):
    """In place of the final norm."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return hidden, residual
