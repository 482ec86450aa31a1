"""The vision tower's patch embedding, with half the work for still images.

Takes vLLM's module apart and keeps its convolution, so that weights load under the same names and the
tower finds its dtype and device where it looks for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qvl.kernels.patchify import FRAME_BYTES, TEMPORAL


class FoldingPatchEmbed(nn.Module):
    """(n, 1536) patches of two frames as vLLM embeds them, (n, 768) of one by the sum of the weights of two.

    vLLM neither quantises nor shards this convolution, whatever it does to the rest. Its weights may come
    from a checkpoint, a dummy loader or a reload, so their sum is made when it is first needed, and again
    after `refold`.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.proj: Any = stock.proj
        self.patch_size = stock.patch_size
        self.temporal_patch_size = stock.temporal_patch_size
        self.hidden_size = stock.hidden_size
        self._folded: torch.Tensor | None = None

    def refold(self) -> None:
        """The weights have changed."""
        self._folded = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1536) or (n, 768) to (n, hidden)."""
        # A convolution whose stride is its kernel is a product; the weight is (hidden, 3, 2, 16, 16).
        weight = self.proj.weight.flatten(1)
        if x.shape[1] == FRAME_BYTES:
            if self._folded is None:
                self._folded = fold(self.proj.weight.data)
            weight = self._folded
        return nn.functional.linear(x, weight, self.proj.bias)


def fold(weight: torch.Tensor) -> torch.Tensor:
    """(hidden, 3, 2, 16, 16) to (hidden, 768) in the same dtype: summed over the frames in float32."""
    if weight.shape[2] != TEMPORAL:
        raise ValueError(f"a patch embedding of {weight.shape[2]} frames cannot be folded")
    return weight.sum(2, dtype=torch.float32).flatten(1).to(weight.dtype)
