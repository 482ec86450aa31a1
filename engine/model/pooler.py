"""Last token to answer: a unit vector (embedder) or the logit yes - no (reranker)."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from vllm.model_executor.layers.pooler import Pooler

from qvl.kernels.pool import pool
from qvl.kernels.score import score


class EmbedPooler(Pooler):  # type: ignore[misc]  # vLLM is untyped here
    """L2-normalised final hidden state of each sequence's last token, float32.

    Matryoshka cuts happen on the client side of the engine: the cut of a unit vector, normalised
    again, is the same vector, and rows of one width leave the device in one copy.
    """

    def get_supported_tasks(self) -> Set[str]:
        return {"embed"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> torch.Tensor:
        """(tokens, hidden) to (sequences, hidden)."""
        return pool(hidden_states, _last(pooling_metadata))


class ScorePooler(Pooler):  # type: ignore[misc]  # vLLM is untyped here
    """(W[yes] - W[no]) . h of each sequence's last token, float32, before the sigmoid."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32), requires_grad=False)

    def get_supported_tasks(self) -> Set[str]:
        return {"classify"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> torch.Tensor:
        """(tokens, hidden) to (sequences, 1)."""
        return score(hidden_states, _last(pooling_metadata), self.weight).unsqueeze(-1)


def _last(pooling_metadata: Any) -> torch.Tensor:
    """Row of `hidden_states` at which each sequence ends."""
    indices: torch.Tensor = pooling_metadata.get_pooling_cursor().last_token_indices_gpu
    return indices
