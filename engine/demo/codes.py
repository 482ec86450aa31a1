"""What is in an item, as a vector: the teacher of the pair.

Every attribute of the world has a direction of its own in a random orthogonal frame; an item's code is the
sum of its attributes'. Two codes are the closer the more attributes are shared, and a query that an
instruction restricts to colours has the colours' part alone. Training pulls vectors to their codes, which
tells more per step than negatives alone, and reads from the codes which in-batch items are no negatives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qvl.engine.demo.world import (
    COLOUR_NAMES,
    MOTIONS,
    PLACE_NAMES,
    QUARTERS,
    SHAPES,
    WORDS,
    Clip,
    Page,
    Scene,
)

Code = npt.NDArray[np.float32]
ATTRIBUTES = (
    *(f"{q} {value}" for q in QUARTERS for value in (*COLOUR_NAMES, *SHAPES, "large", "striped")),
    *(f"over {place}" for place in PLACE_NAMES),
    *(f"any {value}" for value in (*COLOUR_NAMES, *SHAPES, "large", "striped")),
    *WORDS,
    *MOTIONS,
)
INDEX = {name: place for place, name in enumerate(ATTRIBUTES)}


def frame(size: int) -> Code:
    """(attributes, size): orthonormal rows."""
    basis, _ = np.linalg.qr(np.random.default_rng(17).standard_normal((size, size)))
    return basis[: len(ATTRIBUTES)].astype(np.float32)


def colours(scene: Scene) -> Code:
    return _bag({f"any {thing.colour}": 1.0 for thing in scene.things if thing})


def shapes(scene: Scene) -> Code:
    return _bag({f"any {thing.shape}": 1.0 for thing in scene.things if thing})


def code(item: Scene | Page | Clip) -> Code:
    """(attributes,): how much of each."""
    if isinstance(item, Page):
        return _bag(dict.fromkeys(item.words, 1.0))
    parts = {f"over {item.place}": 1.0}
    if isinstance(item, Clip):
        parts |= {item.motion: 1.0, f"any {item.thing.colour}": 1.0, f"any {item.thing.shape}": 1.0}
        return _bag(parts | ({"any striped": 1.0} if item.thing.striped else {}))
    for quarter, thing in zip(QUARTERS, item.things, strict=True):
        if thing is not None:
            parts |= {f"{quarter} {thing.colour}": 0.6, f"{quarter} {thing.shape}": 0.6}
            parts |= {f"{quarter} large": 0.5} if thing.large else {}
            parts |= {f"{quarter} striped": 0.5} if thing.striped else {}
            parts |= {f"any {thing.colour}": 0.9, f"any {thing.shape}": 0.9}
    return _bag(parts)


def parts(item: Scene | Page) -> Code:
    """(parts, attributes), 0 or 1: a scene's quarters or a page's lines."""
    if isinstance(item, Page):
        return np.stack([_bag({word: 1.0}) for word in item.words])
    found = []
    for quarter, thing in zip(QUARTERS, item.things, strict=True):
        held = {thing.colour, thing.shape} if thing else set()
        held |= {"large"} if thing and thing.large else set()
        held |= {"striped"} if thing and thing.striped else set()
        named = [f"{where} {each}" for each in held for where in (quarter, "any")]
        found.append(_bag(dict.fromkeys([*named, f"over {item.place}"], 1.0)))
    return np.stack(found)


def _bag(parts: dict[str, float]) -> Code:
    vector = np.zeros(len(ATTRIBUTES), np.float32)
    for name, weight in parts.items():
        vector[INDEX[name]] = weight
    return vector
