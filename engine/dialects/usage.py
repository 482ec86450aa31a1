"""Token counts as OpenAI spells them, with the split between text and pixels."""

from __future__ import annotations

from typing import TypedDict

from qvl.engine import protocol


class Details(TypedDict):
    text_tokens: int
    visual_tokens: int
    images: int
    videos: int
    image_pixels: int
    video_pixels: int


class Usage(TypedDict):
    prompt_tokens: int
    total_tokens: int
    prompt_tokens_details: Details


def usage(cost: protocol.Usage) -> Usage:
    return {
        "prompt_tokens": cost.total_tokens,
        "total_tokens": cost.total_tokens,
        "prompt_tokens_details": {
            "text_tokens": cost.text_tokens,
            "visual_tokens": cost.visual_tokens,
            "images": cost.images,
            "videos": cost.videos,
            "image_pixels": cost.image_pixels,
            "video_pixels": cost.video_pixels,
        },
    }
