"""Items to padded tensors for Hugging Face's Qwen3-VL, with the prompts and ids of the serving path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from qvl.engine import prompt
from qvl.engine.demo.tasks import Item
from qvl.engine.media.frames import FACTOR, LIST_BUDGET, resize_frame, video_size
from qvl.engine.media.image import resized
from qvl.engine.media.visual import Visual, pair_times
from qvl.engine.protocol import Content
from qvl.engine.quantize.tensors import Tensors, tensors
from qvl.engine.text_side import TextSide

FPS = 2.0
"""What the reference takes a list of frames for."""


class Collator:
    """One for each checkpoint: `collate(items)` for the embedder, `pairs(...)` for the reranker."""

    def __init__(self, side: TextSide, config: dict[str, Any]) -> None:
        self._side = side
        self._config = config

    def items(self, items: Sequence[Item]) -> Tensors:
        visuals = [drawn(item) for item in items]
        texts = [
            prompt.embed_text(self._side.template, _content(item), seen, None)
            for item, seen in zip(items, visuals, strict=True)
        ]
        return self._batch(texts, visuals)

    def pairs(self, pairs: Sequence[tuple[Item, Item]]) -> Tensors:
        visuals, texts = [], []
        for query, document in pairs:
            asked, shown = drawn(query), drawn(document)
            contents = _content(query), _content(document)
            texts.append(prompt.rerank_text(self._side.template, *contents, asked, shown, None))
            visuals.append(asked + shown)
        return self._batch(texts, visuals)

    def _batch(self, texts: list[str], visuals: list[list[Visual]]) -> Tensors:
        encoded = self._side.tokenizer.encode(texts)
        rows = [
            self._side.tokenizer.prompt(ids, seen, where="training").ids
            for ids, seen in zip(encoded, visuals, strict=True)
        ]
        return tensors(rows, visuals, self._config)


def last_hidden(model: Any, batch: Tensors) -> torch.Tensor:
    """(items, hidden): the last token's state; padding stands on the right, where nothing before sees it."""
    out, last = run(model, batch)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden[torch.arange(len(last)), last]


def run(model: Any, batch: Tensors, **asked: bool) -> tuple[Any, torch.Tensor]:
    """The model's output, and where in it each row's last token is.

    Tokens that all rows begin with (the system message, the instruction) are run once, not once a row: they
    are half of all, and the gradient goes through their keys and values as it would through each row's own.
    """
    ids, kinds, mask = (batch[name] for name in ("input_ids", "mm_token_type_ids", "attention_mask"))
    last = mask.sum(1) - 1
    same = ((ids == ids[:1]) & (kinds == 0)).all(0)
    shared = min(int(same.long().cumprod(0).sum()), int(last.min()))
    if len(ids) == 1 or not shared:
        return model(**batch, use_cache=False, **asked), last
    grids = {name: batch.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    places, _ = model.get_rope_index(ids, kinds, attention_mask=mask, **grids)
    past = model(
        input_ids=ids[:1, :shared], position_ids=places[:, :1, :shared], use_cache=True
    ).past_key_values
    past.batch_repeat_interleave(len(ids))
    rest = batch | {"input_ids": ids[:, shared:], "position_ids": places[..., shared:]}
    del rest["mm_token_type_ids"]
    return model(**rest, past_key_values=past, use_cache=True, **asked), last - shared


def _content(item: Item) -> Content:
    """The media are placeholders here: the prompt only asks how many there are."""
    return Content(
        texts=(item.text,) if item.text else (),
        images=(b"",) if item.image else (),
        videos=((b"",),) if item.frames else (),
        instruction=item.instruction,
    )


def drawn(item: Item) -> list[Visual]:
    if item.frames:
        return [_clip(item.frames, item.small)]
    return [Visual("image", np.asarray(item.image)[None].copy(), (), "")] if item.image else []


def _clip(frames: Sequence[Image.Image], small: bool) -> Visual:
    """Resized twice, as `media.frames` does it; without the files that it reads them from."""
    if small:
        pixels = np.stack([np.asarray(each) for each in frames])
        return Visual("video", pixels, pair_times(range(len(frames)), FPS), "")
    first = [resized(frame, FACTOR) for frame in frames]
    height, width, _ = first[0].shape
    size = video_size(height, width, len(frames), LIST_BUDGET)
    pixels = np.stack([resize_frame(each, *size) for each in first])
    return Visual("video", pixels, pair_times(range(len(frames)), FPS), "")
