"""vLLM's Qwen3-VL as a pooling model that takes uint8 pixels from shared memory and has the right head.

vLLM's own adapter (`convert="embed"`) wraps this class: it leaves lm_head out and keeps our pooler.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.utils import StageMissingLayer, WeightsMapper
from vllm.platforms import current_platform

from qvl.engine.model.patch_embed import FoldingPatchEmbed
from qvl.engine.model.pixels import SharedPixels
from qvl.engine.model.pooler import EmbedPooler, ScorePooler
from qvl.engine.model.tail import Tail
from qvl.kernels.patchify import FRAME_BYTES, TEMPORAL, patchify

_PIXELS = {("pixel_values", "image_grid_thw"): 1, ("pixel_values_videos", "video_grid_thw"): TEMPORAL}
"""Under which names pixels and their grids come, and the frames of a patch."""
_LAYERS = ("language_model.layers.", "model.layers.", "layers.")
"""Where the text layers are when a part of the model was trained and saved."""
_BEHIND_THE_SERVER = 5
"""Niceness of a model that computes on the server's own cores: refusals and probes waited for it."""


class QvlQwen3VL(Qwen3VLForConditionalGeneration):  # type: ignore[misc]  # vLLM is untyped here
    """Reads of `hf_config`: `qvl_head`, "embed" or "score"; for a score head `qvl_yes` and `qvl_no`, ids."""

    hf_to_vllm_mapper = Qwen3VLForConditionalGeneration.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={
            **dict.fromkeys(_LAYERS, "language_model.model.layers."),
            "language_model.embed_tokens.": "language_model.model.embed_tokens.",
            "language_model.norm.": "language_model.model.norm.",
        }
    )
    """Of weights and of adapters: sentence-transformers trains and saves `Qwen3VLModel`, a part of this."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if current_platform.is_cpu():
            os.nice(_BEHIND_THE_SERVER)
        self._settings = vllm_config
        self._pixels = SharedPixels(vllm_config.additional_config.path)
        length = vllm_config.model_config.max_model_len
        self._of_text = torch.arange(length, device="cpu").expand(3, length)
        if not isinstance(
            self.visual, StageMissingLayer
        ):  # as it is where images and videos are limited to 0
            self.visual.patch_embed = FoldingPatchEmbed(self.visual.patch_embed)
        self.pooler = (
            ScorePooler(self.config.text_config.hidden_size)
            if self.config.qvl_head == "score"
            else EmbedPooler()
        )

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Integers are places in the shared pixels; floats are vLLM's own profiling run."""
        for (pixels, grid), frames in _PIXELS.items():
            value = kwargs.get(pixels)
            if not isinstance(value, torch.Tensor):
                continue
            if value.is_floating_point():
                self._warm_up()
            else:
                kwargs[pixels] = self._patches(value, kwargs[grid].tolist(), frames)
        return super().embed_multimodal(**kwargs)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> Any:
        """(3, tokens) and 0 for text alone: a view, where vLLM computes the same anew for each prompt."""
        if mm_features or len(input_tokens) > self._of_text.shape[1]:
            return super().get_mrope_input_positions(input_tokens, mm_features)
        return self._of_text[:, : len(input_tokens)], 0

    def _warm_up(self) -> None:
        """Lock the shared pages and compile what profiling does not reach: first requests would wait for it.

        Kernels are made anew for sides that 16 divides, and compiled parts for one row alone.
        """
        device, dtype = self.visual.device, self.visual.dtype
        self._pixels.fetch(torch.empty((0, 3), dtype=torch.int64), device)
        for (pixels, grid), frames in _PIXELS.items():
            for height, width in product((2, 16), repeat=2):
                block = torch.zeros((height * width, frames * FRAME_BYTES), dtype=torch.uint8, device=device)
                patches = patchify(block, [[1, height, width]], dtype)
                super().embed_multimodal(**{pixels: patches, grid: torch.tensor([[1, height, width]])})
        if self.pooler.tail is not None:
            self.pooler.tail(
                torch.zeros((1, self.config.text_config.hidden_size), dtype=dtype, device=device)
            )

    def _patches(self, places: torch.Tensor, grids: list[list[int]], frames: int) -> torch.Tensor:
        """(media, 3) places to (patches, 768 or 1536), folded for still images.

        Stale media are not a number, which is refused later.
        """
        flat, stale = self._pixels.fetch(places, self.visual.device)
        patches = patchify(flat.view(-1, frames * FRAME_BYTES), grids, self.visual.dtype)
        for index in stale:
            torch.split(patches, [t * h * w for t, h, w in grids])[index].fill_(torch.nan)
        return patches

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loaded: set[str] = super().load_weights(self._tap_head(weights))
        if not isinstance(self.visual, StageMissingLayer):
            self.visual.patch_embed.refold()
        if isinstance(self.pooler, ScorePooler):
            loaded.add("pooler.weight")
        before = {parameter: name for name, parameter in self.named_parameters()}
        self.pooler.tail = Tail.cut(self.language_model.model, self._settings)
        return loaded | {name for name, moved in self.named_parameters() if before[moved] in loaded}

    def _tap_head(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Cut W[yes] - W[no] out of lm_head (tied: the token embedding) as it passes by, in float32.

        Works whatever the tensor parallelism or quantisation, and allocates no lm_head.
        """
        if not isinstance(self.pooler, ScorePooler):
            yield from weights
            return
        source = "language_model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        found = False
        for name, weight in weights:
            if name.endswith(source):
                if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                    raise ValueError(
                        f"{name} is quantised ({weight.dtype}), and the yes/no head is cut from it: "
                        "quantise the model without it"
                    )
                yes, no = weight[self.config.qvl_yes], weight[self.config.qvl_no]
                self.pooler.weight.data.copy_(yes.float() - no.float())
                found = True
            yield name, weight
        if not found:
            raise ValueError(f"the checkpoint has no {source}, which the yes/no head is cut from")
