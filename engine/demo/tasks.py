"""Training and evaluation examples: a query, its document, and what either should be taken for.

    batch = sample("text to image", rng, 64)

Half of a batch are near misses of the other half: the same thing with one change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from PIL import Image

from qvl.engine.demo import codes
from qvl.engine.demo.codes import Code
from qvl.engine.demo.drawing import Size
from qvl.engine.demo.world import (
    WIDE,
    WORDS,
    Clip,
    Page,
    Scene,
    edited,
    random_clip,
    random_page,
    random_scene,
    random_thing,
)

Rng: TypeAlias = np.random.Generator
FIND = "Retrieve the picture that fits."
MATCH_COLOURS = "Match the colours."
MATCH_SHAPES = "Match the shapes."
MATCH_WORDS = "Match the page's words."
FIND_VIDEO = "Retrieve the video that fits."
CHANGE = "Retrieve the picture with this change."


@dataclass(frozen=True)
class Item:
    text: str = ""
    image: Image.Image | None = None
    frames: tuple[Image.Image, ...] = ()
    instruction: str | None = None
    small: bool = False
    """Frames kept as small as they are: a short cut of training, which the reference does not take."""


@dataclass(frozen=True)
class Example:
    query: Item
    document: Item
    query_code: Code
    document_code: Code


def text_to_image(rng: Rng, scene: Scene) -> Example:
    asked = Item(scene.caption(rng), instruction=FIND if rng.integers(2) else None)
    return Example(asked, Item(image=scene.draw(rng)), codes.code(scene), codes.code(scene))


def image_to_text(rng: Rng, scene: Scene) -> Example:
    return Example(
        Item(image=scene.draw(rng)), Item(scene.caption(rng)), codes.code(scene), codes.code(scene)
    )


def page(rng: Rng, shown: Page) -> Example:
    code = codes.code(shown)
    return Example(Item(shown.caption(rng), instruction=MATCH_WORDS), Item(image=shown.draw(rng)), code, code)


def mixed(rng: Rng, scene: Scene) -> Example:
    return change(rng, scene, *edited(scene, rng))


def change(rng: Rng, scene: Scene, wanted: Scene, told: str) -> Example:
    asked = Item(told, scene.draw(rng), instruction=CHANGE)
    return Example(asked, Item(image=wanted.draw(rng)), codes.code(wanted), codes.code(wanted))


def colours(rng: Rng, scene: Scene) -> Example:
    """The document has the same colours elsewhere, in other shapes, over another place."""
    found = alike(rng, scene, "colour")
    asked = Item(image=scene.draw(rng), instruction=MATCH_COLOURS)
    return Example(asked, Item(image=found.draw(rng)), codes.colours(scene), codes.code(found))


def shapes(rng: Rng, scene: Scene) -> Example:
    found = alike(rng, scene, "shape")
    asked = Item(image=scene.draw(rng), instruction=MATCH_SHAPES)
    return Example(asked, Item(image=found.draw(rng)), codes.shapes(scene), codes.code(found))


def video(rng: Rng, clip: Clip, size: Size = WIDE) -> Example:
    asked = Item(clip.caption(rng), instruction=FIND_VIDEO if rng.integers(2) else None)
    shown = Item(frames=tuple(clip.draw(rng, size)), small=size != WIDE)
    return Example(asked, shown, codes.code(clip), codes.code(clip))


def alike(rng: Rng, scene: Scene, kept: str) -> Scene:
    """A new scene with the things' `kept` attribute and nothing else of them."""
    other = random_scene(rng)
    held = [thing for thing in scene.things if thing]
    spots = rng.permutation(4)[: len(held)].tolist()
    fresh = [replace(random_thing(rng), **{kept: getattr(thing, kept)}) for thing in held]
    return replace(other, things=tuple(fresh[spots.index(i)] if i in spots else None for i in range(4)))


SCENES: dict[str, Callable[[Rng, Scene], Example]] = {
    "text to image": text_to_image,
    "image to text": image_to_text,
    "mixed": mixed,
    "colours": colours,
    "shapes": shapes,
}


SMALL = (128, 128)
CLIPS: dict[str, Size] = {"video": WIDE, "small video": SMALL}


def sample(task: str, rng: Rng, count: int) -> list[Example]:
    """All under one instruction, so that they begin alike."""
    if task == "page":
        made = [page(rng, each) for each in pages(rng, count)]
    elif task in CLIPS:
        made = [video(rng, random_clip(rng), CLIPS[task]) for _ in range(count)]
    else:
        scenes = [random_scene(rng) for _ in range(-(-count // 2))]
        scenes += [edited(scene, rng)[0] for scene in scenes]
        made = [SCENES[task](rng, scene) for scene in scenes[:count]]
    told = made[0].query.instruction
    return [replace(each, query=replace(each.query, instruction=told)) for each in made]


def pages(rng: Rng, count: int) -> list[Page]:
    """Every second one has three words of the one before."""
    made: list[Page] = []
    while len(made) < count:
        first = random_page(rng)
        left = [word for word in WORDS if word not in first.words]
        made += [first, replace(first, words=(*first.words[:3], left[rng.integers(len(left))]))]
    return made[:count]
