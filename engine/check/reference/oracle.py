"""Conversations through the Hugging Face processor and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from qwen_vl_utils import process_vision_info
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from qvl.engine.check.reference import conversation, video
from qvl.engine.check.reference.conversation import Item, Part

EMBED_LENGTH = 8192
RERANK_LENGTH = 10240
KEPT = 5
"""Ids at the end of a reranker's prompt that are never cut; they come on top of RERANK_LENGTH."""


class Prompts:
    """What a checkpoint's processor makes of items; no weights."""

    def __init__(self, folder: Path, pixels: Mapping[str, int] | None = None) -> None:
        """`pixels`: min_pixels and max_pixels, as the official constructors take them."""
        self.pixels = {**conversation.IMAGE_PIXELS, **(pixels or {})}
        self.processor = AutoProcessor.from_pretrained(folder)

    def embed_ids(self, item: Item) -> list[int]:
        return _ids(self.embed_inputs(item))

    def rerank_ids(self, query: Item, document: Item, instruction: str | None = None) -> list[int]:
        return _ids(self.rerank_inputs(query, document, instruction))

    def embed_inputs(self, item: Item) -> dict[str, torch.Tensor]:
        """What the model is fed; raises ValueError where the cut to 8192 goes through an image or a video."""
        return self._processed(
            conversation.embedding(item, self.pixels), truncation=True, max_length=EMBED_LENGTH
        )

    def rerank_inputs(
        self, query: Item, document: Item, instruction: str | None = None
    ) -> dict[str, torch.Tensor]:
        inputs = self._processed(
            conversation.pair(query, document, instruction, self.pixels), truncation=False
        )
        ids = _ids(inputs)
        ids = self._cut(ids[:-KEPT]) + ids[-KEPT:]
        kinds = self.processor.create_mm_token_type_ids([ids])
        inputs["input_ids"] = torch.tensor([ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.as_tensor(kinds)
        return inputs

    def _processed(self, messages: list[Part], **options: Any) -> dict[str, torch.Tensor]:
        text = self.processor.apply_chat_template([messages], add_generation_prompt=True, tokenize=False)
        with video.readers():
            images, videos, sampling = process_vision_info(
                [messages], image_patch_size=16, return_video_kwargs=True, return_video_metadata=True
            )
        if not (images or videos):  # the processor did no more, until 5.20 which refuses pads of nothing
            return dict(self.processor.tokenizer(text, return_tensors="pt", **options))
        frames, metadata = map(list, zip(*videos, strict=True)) if videos else (None, None)
        batch = self.processor(
            text=text,
            images=images,
            videos=frames,
            video_metadata=metadata,
            do_resize=False,
            return_tensors="pt",
            **sampling,
            **options,
        )
        return dict(batch)

    def _cut(self, ids: list[int]) -> list[int]:
        """Drop ordinary ids from the end until RERANK_LENGTH are left; special ones all stay."""
        if len(ids) <= RERANK_LENGTH:
            return ids
        special = set(self.processor.tokenizer.all_special_ids)
        ordinary = [place for place, token in enumerate(ids) if token not in special]
        room = max(0, RERANK_LENGTH - (len(ids) - len(ordinary)))
        dropped = set(ordinary[room:])
        return [token for place, token in enumerate(ids) if place not in dropped]


class Reference(Prompts):
    """One checkpoint, asked as either model."""

    def __init__(
        self,
        folder: Path,
        pixels: Mapping[str, int] | None = None,
        *,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        """Raises ValueError where weights are missing, which the library would fill with random ones."""
        super().__init__(folder, pixels)
        if device != "cpu":  # float32 is to be that, and not ten bits of it
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        model, found = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True
        )
        if missing := sorted({*found["missing_keys"]} - {"lm_head.weight"}):
            raise ValueError(f"{folder} has no {missing[0]}, of {len(missing)} weights that are missing")
        self.model = model.to(device).eval()
        words = self.processor.tokenizer.get_vocab()
        rows = self.model.lm_head.weight.detach()
        self.direction = rows[words["yes"]].float() - rows[words["no"]].float()

    def embed(self, items: Sequence[Item]) -> tuple[list[list[int]], npt.NDArray[np.float32]]:
        """Ids, and vectors (items, hidden), each of length 1."""
        inputs = [self.embed_inputs(item) for item in items]
        hidden = torch.stack([self._last_hidden(each) for each in inputs])
        return [_ids(each) for each in inputs], torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy()

    def rerank(
        self, query: Item, documents: Sequence[Item], instruction: str | None = None
    ) -> tuple[list[list[int]], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Ids, logits and scores, one of each for every document."""
        inputs = [self.rerank_inputs(query, document, instruction) for document in documents]
        logits = torch.stack([self._last_hidden(each) @ self.direction for each in inputs])
        return [_ids(each) for each in inputs], logits.cpu().numpy(), torch.sigmoid(logits).cpu().numpy()

    def _last_hidden(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(hidden,): the last token's state after the final norm."""
        placed = {name: each.to(self.model.device) for name, each in inputs.items()}
        with torch.inference_mode():
            hidden: torch.Tensor = self.model.model(**placed, use_cache=False).last_hidden_state[0, -1]
        return hidden.float()


def _ids(inputs: Mapping[str, torch.Tensor]) -> list[int]:
    ids: list[int] = inputs["input_ids"][0].tolist()
    return ids
