"""Which model an index is of, told by that model's vector of a text of ours.

A name does not tell: checkpoints in folders of one name are different models, and one model has many names.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import numpy.typing as npt

CANARY = "Three red bicycles lean on a wall beside page 7 of 9. Drei rote Fahrräder. 三辆红色的自行车。"
"""Never changed: what an index keeps is of these words, asked as a document is."""
LEAST = 0.95
"""Cosine of one model's vectors: of the bundled embedder it is 0.99998 in bfloat16, 0.999 in FP8, 0.996 in
AWQ's four bits, and with models of other weights below 0.1."""


def written(vector: npt.NDArray[np.float32]) -> str:
    """As a layout keeps it: whole, for any prefix of it may be the index's."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def strange(kept: str, now: str) -> str | None:
    """What tells that the vectors are not of one model; None: nothing does."""
    was, found = _read(kept), _read(now)
    if len(was) != len(found):
        return f"its vectors have {len(found):,} numbers, those had {len(was):,}"
    cosine = float(was @ found / (np.linalg.norm(was) * np.linalg.norm(found) or 1.0))
    if cosine >= LEAST:
        return None
    return f"its vector of one fixed text and theirs have a cosine of {cosine:.2f}, below {LEAST}"


def _read(text: str) -> npt.NDArray[np.float32]:
    try:
        return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
    except (binascii.Error, ValueError):
        return np.zeros(0, np.float32)
