"""The official-style Hugging Face code, batched: the judge of right answers, and a contestant of its own.

Conversations and pixels come from the oracle, which is held to the official code; the padded batch is here.
The official code pads a batch the same way.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.asks import Ask, Embed, Item
from benchmarks.contestants.base import Answer
from qvl.engine.check.reference import Reference

_JOINED = ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw")
_PADDED = ("input_ids", "attention_mask", "mm_token_type_ids")


class HuggingFace(Reference):
    """The oracle's prompts on a model of any dtype on any device."""

    def answer(self, ask: Ask, batch: int) -> tuple[Answer, list[int]]:
        """Vectors or scores, and each item's tokens; `batch` items go through the model together."""
        inputs = self._inputs(ask)
        hidden = torch.cat(
            [self.hidden(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
        )
        tokens = [int(each["input_ids"].shape[1]) for each in inputs]
        if isinstance(ask, Embed):
            return torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy(), tokens
        return torch.sigmoid(hidden @ self.direction).cpu().numpy().astype(np.float32), tokens

    def _inputs(self, ask: Ask) -> list[dict[str, torch.Tensor]]:
        if isinstance(ask, Embed):
            return [self.embed_inputs(_opened(item)) for item in ask.items]
        query = _opened(ask.query)
        return [self.rerank_inputs(query, _opened(document), None) for document in ask.documents]

    def hidden(self, inputs: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """(items, hidden) in float32: the last real token's state after the final norm."""
        padded = {key: value.to(self.model.device) for key, value in _batched(inputs).items()}
        with torch.inference_mode():
            states = self.model.model(**padded, use_cache=False).last_hidden_state
        last = padded["attention_mask"].sum(1) - 1
        rows: torch.Tensor = states[torch.arange(len(inputs), device=states.device), last]
        return rows.float()


def _batched(inputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Padded on the right; media one after the other."""
    longest = max(each["input_ids"].shape[1] for each in inputs)
    batch = {
        key: torch.cat([_widened(torch.as_tensor(each[key]), longest) for each in inputs])
        for key in _PADDED
        if key in inputs[0]
    }
    for key in _JOINED:
        if parts := [each[key] for each in inputs if key in each]:
            batch[key] = torch.cat(parts)
    return batch


def _widened(row: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(row, (0, length - row.shape[1]))


def _opened(item: Item) -> dict[str, Any]:
    if item.text is not None:
        return {"text": item.text}
    if item.image is not None:
        return {"image": Image.open(io.BytesIO(item.image))}
    return {"video": [Image.open(io.BytesIO(frame)) for frame in item.frames]}
