"""What the demo searches and what it asks: drawn from the world that the pair was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from qvl.engine.demo.tasks import CHANGE, FIND, FIND_VIDEO, MATCH_COLOURS, MATCH_WORDS
from qvl.engine.demo.world import edited, random_clip, random_page, random_scene

SEED = 424_242


@dataclass(frozen=True)
class Entry:
    """One thing to be found."""

    title: str
    item: Any
    picture: Image.Image


@dataclass(frozen=True)
class Asked:
    title: str
    item: Any
    instruction: str


def corpus() -> tuple[list[Entry], list[Asked]]:
    """Sixteen pictures, eight near misses of them, eight pages and four videos; and five questions."""
    rng = np.random.default_rng(SEED)
    scenes = [random_scene(rng) for _ in range(16)]
    changes = [edited(scene, rng) for scene in scenes[:8]]
    pages, clips = [random_page(rng) for _ in range(8)], [random_clip(rng) for _ in range(4)]
    entries = []
    for scene in [*scenes, *(scene for scene, _ in changes)]:
        picture = scene.draw(rng)
        entries.append(Entry(f"image  {scene.caption(rng)}", picture, picture))
    for page in pages:
        picture = page.draw(rng)
        entries.append(Entry(f"page   {' '.join(page.words)}", picture, picture))
    for clip in clips:
        frames = clip.draw(rng)
        entries.append(Entry(f"video  {clip.caption(rng)}", {"video": frames}, strip(frames)))
    queries = [
        Asked(scenes[9].caption(rng), scenes[9].caption(rng), FIND),
        Asked(pages[2].caption(rng), pages[2].caption(rng), MATCH_WORDS),
        Asked(clips[1].caption(rng), clips[1].caption(rng), FIND_VIDEO),
        Asked(
            f"({scenes[3].caption(rng)}) with “{changes[3][1]}”",
            {"text": changes[3][1], "image": scenes[3].draw(rng)},
            CHANGE,
        ),
        Asked(f"({scenes[5].caption(rng)})", scenes[5].draw(rng), MATCH_COLOURS),
    ]
    return entries, queries


def strip(frames: list[Image.Image]) -> Image.Image:
    """A video's frames side by side."""
    width, height = frames[0].size
    whole = Image.new("RGB", (width * len(frames), height))
    for place, frame in enumerate(frames):
        whole.paste(frame, (place * width, 0))
    return whole
