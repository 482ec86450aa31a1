"""Last token to answer: a unit vector (embedder) or the logit yes - no (reranker)."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from vllm.model_executor.layers.pooler import Pooler

from qvl.engine.model.tail import Tail
from qvl.kernels.pool import pool
from qvl.kernels.score import score


class _LastToken(Pooler):  # type: ignore[misc]  # vLLM is untyped here
    def __init__(self) -> None:
        super().__init__()
        self.tail: Tail | None = None
        """What the model has left to do."""

    def last(self, hidden: torch.Tensor, pooling_metadata: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Final hidden states, and the row among them at which each sequence ends."""
        rows: torch.Tensor = pooling_metadata.get_pooling_cursor().last_token_indices_gpu
        if self.tail is None:
            return hidden, rows
        return self.tail(hidden[rows]), torch.arange(len(rows), device=rows.device)


class EmbedPooler(_LastToken):
    """L2-normalised final hidden state of each sequence's last token, float32.

    Matryoshka cuts happen on the client side of the engine: the cut of a unit vector, normalised
    again, is the same vector, and rows of one width leave the device in one copy.
    """

    def get_supported_tasks(self) -> Set[str]:
        return {"embed"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor]:
        """(tokens, hidden) to a row of (hidden,) a sequence."""
        return _on_host(pool(*self.last(hidden_states, pooling_metadata)))


class ScorePooler(_LastToken):
    """(W[yes] - W[no]) . h of each sequence's last token, float32, before the sigmoid."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32), requires_grad=False)

    def get_supported_tasks(self) -> Set[str]:
        return {"classify"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor]:
        """(tokens, hidden) to a row of (1,) a sequence."""
        return _on_host(score(*self.last(hidden_states, pooling_metadata), self.weight).unsqueeze(-1))


def _on_host(rows: torch.Tensor) -> list[torch.Tensor]:
    """The rows on their way to the host, in one copy; vLLM waits for it, and leaves them as they are.

    In a step that leaves one sequence unfinished its own way is a copy for each row, and on 0.26 one that
    waits for the step to end.
    """
    if rows.is_cuda:
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        rows = host.copy_(rows, non_blocking=True)
    # Each with no more storage than its own: 0.26 pickles storages whole on their way from a GPU of several.
    return [torch.from_numpy(row) for row in rows.numpy()]
