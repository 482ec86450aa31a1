"""A medium as vLLM's front hands it to the engine process: content hash, where its pixels lie, and its span.

To make two tensors of each medium and to have vLLM's encoder write them took 0.3 ms of a photo beside a busy
engine; so that is done once, and the bytes around the numbers are kept.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from qvl.engine.media.block import Place
from qvl.engine.prompt import Span

if TYPE_CHECKING:
    from qvl.engine.media import Visual

_INLINE_BYTES = 256
"""Of a tensor that stands within the message; ours have 48 at most."""
_NUMBERS = struct.Struct("<3q")
"""A tensor of three int64."""
_SAMPLE_PLACE, _SAMPLE_GRID = (7**18, 7**19, 7**20), (11**14, 11**15, 11**16)
"""What nothing else in the message spells."""
_KWARGS = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}
"""Of vLLM's own model, so that its position code finds the grid."""


class _Written(NamedTuple):
    """The bytes around the numbers."""

    before: bytes
    between: bytes
    after: bytes
    grid_first: bool

    def item(self, place: Place, grid: tuple[int, int, int]) -> msgspec.Raw:
        one, two = _NUMBERS.pack(place.offset, place.nbytes, place.generation), _NUMBERS.pack(*grid)
        if self.grid_first:
            one, two = two, one
        return msgspec.Raw(self.before + one + self.between + two + self.after)


def feature(visual: Visual, place: Place, span: Span, ids: list[int]) -> Any:
    """A MultiModalFeatureSpec; `span` is that of the visual in the prompt's `ids`."""
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    return MultiModalFeatureSpec(
        data=_written(visual.kind).item(place, visual.grid),
        modality=visual.kind,
        identifier=visual.digest,
        mm_position=_range(visual, span, ids),
        mm_hash=visual.digest,
    )


@cache
def _written(kind: str) -> _Written:
    import torch
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
    from vllm.v1.serial_utils import MsgpackEncoder

    pixels, shape = _KWARGS[kind]
    field = MultiModalFieldConfig.batched(kind, keep_on_cpu=True)
    data = {pixels: torch.tensor([_SAMPLE_PLACE]), shape: torch.tensor([_SAMPLE_GRID])}
    item = MultiModalKwargsItems.from_hf_inputs(data, {pixels: field, shape: field})[kind][0]
    (written,) = MsgpackEncoder(size_threshold=_INLINE_BYTES).encode(item)
    place, grid = _NUMBERS.pack(*_SAMPLE_PLACE), _NUMBERS.pack(*_SAMPLE_GRID)
    grid_first = written.index(grid) < written.index(place)
    one, two = (grid, place) if grid_first else (place, grid)
    before, behind = bytes(written).split(one)
    between, after = behind.split(two)
    return _Written(before, between, after, grid_first)


def _range(visual: Visual, span: Span, ids: list[int]) -> Any:
    import torch
    from vllm.multimodal.inputs import PlaceholderRange

    if visual.kind == "image":
        return PlaceholderRange(offset=span.offset, length=span.length)
    inside = torch.tensor(ids[span.offset : span.offset + span.length])
    return PlaceholderRange(offset=span.offset, length=span.length, is_embed=inside == span.pad)
