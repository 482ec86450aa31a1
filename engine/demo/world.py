"""A small visual world, seeded and endless: scenes of shapes, printed pages, short clips, and their captions.

    rng = np.random.default_rng(7)
    scene = random_scene(rng)
    scene.draw(rng), scene.caption(rng)         # a 64 × 64 picture, one of several phrasings
    page = random_page(rng); clip = random_clip(rng)

A scene has four quarters; two or three of them hold a shape. Everything that a caption says can be seen, and
two scenes with the same caption are the same scene, so that a caption picks one picture out of a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qvl.engine.demo.drawing import COLOURS, PLACES, SIDE, Size, backdrop, stamp

QUARTERS = ("top left", "top right", "bottom left", "bottom right")
SHAPES = ("circle", "square", "triangle", "cross", "ring")
MOTIONS = ("moves left", "moves right", "moves up", "moves down", "grows", "shrinks")
WORDS = (
    "apple",
    "bread",
    "cloud",
    "dance",
    "eagle",
    "flute",
    "grape",
    "house",
    "island",
    "juice",
    "knife",
    "lemon",
    "music",
    "night",
    "ocean",
    "paper",
    "queen",
    "river",
    "storm",
    "table",
)
PAPERS = {"white": (250, 250, 246), "yellow": (247, 232, 170), "grey": (205, 208, 212)}
WIDE = (512, 256)
"""A clip's frames: 128 tokens, the fewest that the reference makes of any."""
COLOUR_NAMES, PLACE_NAMES, PAPER_NAMES = tuple(COLOURS), tuple(PLACES), tuple(PAPERS)


@dataclass(frozen=True, slots=True)
class Thing:
    colour: str
    shape: str
    large: bool
    striped: bool

    @property
    def name(self) -> str:
        size, texture = "large " if self.large else "small ", "striped " if self.striped else ""
        return f"{size}{texture}{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """`things[i]` stands in `QUARTERS[i]`."""

    things: tuple[Thing | None, ...]
    place: str

    def caption(self, rng: np.random.Generator) -> str:
        order = [i for i in rng.permutation(4) if self.things[i] is not None]
        listed = [(QUARTERS[i], f"a {thing.name}") for i in order if (thing := self.things[i])]
        style = int(rng.integers(4))
        if style == 0:
            return " and ".join(f"at the {where} {name}" for where, name in listed) + f", over {self.place}"
        if style == 1:
            return f"over {self.place}: " + ", ".join(f"{where} {name}" for where, name in listed)
        if style == 2:
            return f"a picture of {self.place}, " + ", ".join(f"in the {w} {n}" for w, n in listed)
        return "; ".join(f"at the {where} {name}" for where, name in listed) + f"; behind it {self.place}"

    def draw(self, rng: np.random.Generator) -> Image.Image:
        image = backdrop(self.place, rng)
        for quarter, thing in enumerate(self.things):
            if thing is not None:
                x, y = 16 + 32 * (quarter % 2), 16 + 32 * (quarter // 2)
                shift = rng.integers(-2, 3, 2)
                stamp(
                    image,
                    thing.shape,
                    thing.colour,
                    thing.striped,
                    (x + int(shift[0]), y + int(shift[1])),
                    13 if thing.large else 8,
                )
        return image

    def with_thing(self, quarter: int, thing: Thing) -> Scene:
        return replace(self, things=(*self.things[:quarter], thing, *self.things[quarter + 1 :]))


@dataclass(frozen=True, slots=True)
class Page:
    """Four words, one to a line; the layout is not part of what a query asks for."""

    words: tuple[str, ...]
    paper: str
    layout: int

    def caption(self, rng: np.random.Generator) -> str:
        first, second, third, fourth = (self.words[i] for i in rng.permutation(4))
        styles = (
            f"{first} {second} {third} {fourth}",
            f"the page that says {first}, {second}, {third} and {fourth}",
            f"a page with the words {first}, {second}, {third}, {fourth}",
        )
        return styles[int(rng.integers(len(styles)))]

    def draw(self, rng: np.random.Generator) -> Image.Image:
        """64 × 128: a word stands in a row of patches of its own; layouts indent and rule it differently."""
        image = Image.new("RGB", (SIDE, 128), PAPERS[self.paper])
        pen = ImageDraw.Draw(image)
        font = ImageFont.load_default(13)
        for line, word in enumerate(self.words):
            x, y = (1, 17, 1 + 16 * (line % 2))[self.layout], 13 + 32 * line
            shift = rng.integers(0, 2, 2)
            pen.text((x + int(shift[0]), y + int(shift[1])), word, fill=(20, 20, 30), font=font)
            if self.layout == 1:
                pen.line((4, 8 + 32 * line, 60, 8 + 32 * line), fill=(120, 120, 130))
        return image


@dataclass(frozen=True, slots=True)
class Clip:
    """One thing that moves or changes its size, in two frames."""

    thing: Thing
    motion: str
    place: str

    def told(self) -> tuple[object, ...]:
        """What its captions say; the size is not among it, since it may change."""
        return self.thing.colour, self.thing.shape, self.thing.striped, self.motion, self.place

    def caption(self, rng: np.random.Generator) -> str:
        size = "striped " if self.thing.striped else ""
        name = f"a {size}{self.thing.colour} {self.thing.shape}"
        styles = (
            f"{name} {self.motion} over {self.place}",
            f"over {self.place} {name} {self.motion}",
            f"a video of {self.place} in which {name} {self.motion}",
        )
        return styles[int(rng.integers(len(styles)))]

    def path(self, rng: np.random.Generator, size: Size = WIDE) -> list[tuple[int, int, int]]:
        """x, y and radius in each frame. It stands near the middle of a token, as a scene's things do."""
        verb = self.motion.rsplit(" ", 1)[-1]
        aside = rng.uniform(0.3, 0.7, 2)
        found = []
        for at in (0.0, 1.0):
            way = 0.2 + 0.6 * (at if verb in ("right", "down") else 1 - at)
            x = size[0] * (way if verb in ("left", "right") else aside[0])
            y = size[1] * (way if verb in ("up", "down") else aside[1])
            shift = rng.integers(-2, 3, 2)
            radius = {"grows": 8 + 20 * at, "shrinks": 28 - 20 * at}.get(verb, 14)
            found.append((cell(x) + int(shift[0]), cell(y) + int(shift[1]), round(radius)))
        return found

    def draw(self, rng: np.random.Generator, size: Size = WIDE) -> list[Image.Image]:
        return self.paint(self.path(rng, size), rng, size)

    def paint(
        self, path: list[tuple[int, int, int]], rng: np.random.Generator, size: Size
    ) -> list[Image.Image]:
        frames = []
        for x, y, radius in path:
            image = backdrop(self.place, rng, size)
            stamp(image, self.thing.shape, self.thing.colour, self.thing.striped, (x, y), radius)
            frames.append(image)
        return frames


def cell(at: float) -> int:
    """The middle of the 32 pixels that become one token."""
    return 32 * int(at // 32) + 16


def random_thing(rng: np.random.Generator) -> Thing:
    colour, shape = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))], SHAPES[rng.integers(len(SHAPES))]
    return Thing(colour, shape, bool(rng.integers(2)), bool(rng.integers(2)))


def random_scene(rng: np.random.Generator) -> Scene:
    held = set(rng.permutation(4)[: rng.integers(2, 4)].tolist())
    things = tuple(random_thing(rng) if i in held else None for i in range(4))
    return Scene(things, PLACE_NAMES[rng.integers(len(PLACE_NAMES))])


def random_page(rng: np.random.Generator) -> Page:
    words = tuple(WORDS[i] for i in rng.permutation(len(WORDS))[:4])
    return Page(words, PAPER_NAMES[rng.integers(len(PAPER_NAMES))], int(rng.integers(3)))


def random_clip(rng: np.random.Generator) -> Clip:
    motion, place = MOTIONS[rng.integers(len(MOTIONS))], PLACE_NAMES[rng.integers(len(PLACE_NAMES))]
    return Clip(random_thing(rng), motion, place)


def edited(scene: Scene, rng: np.random.Generator) -> tuple[Scene, str]:
    """The scene with one change, and that change in words: a new backdrop, colour or shape."""
    held = [i for i in range(4) if scene.things[i] is not None]
    quarter = held[rng.integers(len(held))]
    thing = scene.things[quarter]
    assert thing is not None
    kind = int(rng.integers(3))
    if kind == 0:
        place = _other(PLACE_NAMES, scene.place, rng)
        return replace(scene, place=place), f"the same over {place}"
    if kind == 1:
        colour = _other(COLOUR_NAMES, thing.colour, rng)
        changed = scene.with_thing(quarter, replace(thing, colour=colour))
        return changed, f"the same with {colour} at the {QUARTERS[quarter]}"
    shape = _other(SHAPES, thing.shape, rng)
    changed = scene.with_thing(quarter, replace(thing, shape=shape))
    return changed, f"the same with a {shape} at the {QUARTERS[quarter]}"


def _other(names: tuple[str, ...], taken: str, rng: np.random.Generator) -> str:
    left = [name for name in names if name != taken]
    return left[rng.integers(len(left))]
