"""What the demo searches and what it asks: drawn from the world that the pair was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from qvl.engine.demo.tasks import CHANGE, FIND, FIND_VIDEO, MATCH_COLOURS, MATCH_WORDS, pages
from qvl.engine.demo.world import Scene, edited, random_clip, random_scene

SEED = 424_242
SCENES, PAGES, CLIPS = 32, 16, 8
TYPED = "Retrieve what fits."


@dataclass(frozen=True)
class Entry:
    """One thing to be found."""

    kind: str
    title: str
    item: Any
    picture: Image.Image


@dataclass(frozen=True)
class Asked:
    """`answer` is the entry that fits, where one is known to."""

    title: str
    item: Any
    instruction: str
    answer: int | None = None
    kind: str = ""
    picture: Image.Image | None = None


def corpus() -> tuple[list[Entry], list[Asked]]:
    """Pictures and two near misses of each, pages that share words, videos; and a question for each."""
    rng = np.random.default_rng(SEED)
    scenes, changes = _families(rng)
    clips = [random_clip(rng) for _ in range(CLIPS)]
    entries: list[Entry] = []
    questions: list[Asked] = []
    for place, scene in enumerate(scenes):
        picture = scene.draw(rng)
        entries.append(Entry("image", scene.caption(rng), picture, picture))
        if place % 3 == 0:
            told = scene.caption(rng)
            questions.append(Asked(told, told, FIND, place, "text → image"))
    for page in pages(rng, PAGES):
        picture, told = page.draw(rng), page.caption(rng)
        questions.append(Asked(told, told, MATCH_WORDS, len(entries), "text → page"))
        entries.append(Entry("page", " ".join(page.words), picture, picture))
    for clip in clips:
        frames, told = clip.draw(rng), clip.caption(rng)
        questions.append(Asked(told, told, FIND_VIDEO, len(entries), "text → video"))
        entries.append(Entry("video", clip.caption(rng), {"video": frames}, strip(frames)))
    for place, told in changes:
        picture = scenes[place - place % 3].draw(rng)
        item = {"text": told, "image": picture}
        questions.append(Asked(told, item, CHANGE, place, "image + change → image", picture))
    shown = scenes[9].draw(rng)
    return entries, [
        *questions,
        Asked("which pictures have these colours?", shown, MATCH_COLOURS, picture=shown),
    ]


def _families(rng: np.random.Generator) -> tuple[list[Scene], list[tuple[int, str]]]:
    """Threes of a scene and two changes of it, no scene twice; and where which change stands, in words."""
    scenes: list[Scene] = []
    changes = []
    while len(scenes) < 3 * SCENES:
        first = random_scene(rng)
        (second, told), (third, _) = edited(first, rng), edited(first, rng)
        if len({first, second, third, *scenes}) == len(scenes) + 3:
            changes.append((len(scenes) + 1, told))
            scenes += [first, second, third]
    return scenes, changes[:CLIPS]


def strip(frames: list[Image.Image]) -> Image.Image:
    """A video's frames one above the other, at half their size."""
    width, height = (side // 2 for side in frames[0].size)
    whole = Image.new("RGB", (width, height * len(frames) + 4 * (len(frames) - 1)), "white")
    for place, frame in enumerate(frames):
        whole.paste(frame.resize((width, height), Image.Resampling.BOX), (0, (height + 4) * place))
    return whole
