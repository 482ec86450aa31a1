"""How much a decoded body lists, before anything walks its lists: a MiB of JSON can hold 300,000 items."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from qvl.engine.config import Limits
from qvl.engine.dialects.fields import Body
from qvl.engine.errors import TooLarge

MOST_VALUES = 1 << 19
"""Keys and values of a body's JSON, numbers not counted: they are small, and a text's token ids are many.
As many as 2,048 items may have, each with all its images (by default)."""
_BLOCK = 1 << 20
_ITEMS = frozenset(
    {
        *("input", "inputs", "texts", "images", "items", "documents", "queries"),
        *("text_1", "text_2", "data_1", "data_2", "contents", "sentences", "passages"),
    }
)
"""Fields that list items."""

Counted: TypeAlias = Literal["items", "documents"]


async def check_raw(raw: bytes) -> None:
    """Raises TooLarge for JSON that would take thirty times its bytes, and the event loop meanwhile."""
    # A value and its comma have three bytes at least, and most large bodies are few long strings.
    if len(raw) <= 3 * MOST_VALUES or raw.count(b",") + raw.count(b":") <= MOST_VALUES:
        return
    if await asyncio.to_thread(_values, raw) > MOST_VALUES:
        raise TooLarge(
            f"the body has over {MOST_VALUES} values; send several requests", code="too_many_values"
        )


def _values(raw: bytes) -> int:
    """Outside strings, colons and the commas that follow no number; no more than tells enough."""
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, within = 0, np.False_
    for start in range(0, len(plain), _BLOCK):
        block = np.frombuffer(plain[start : start + _BLOCK], np.uint8)
        inside = np.logical_xor.accumulate(block == ord('"')) ^ within
        commas, colons = ((block == ord(sign)) & ~inside for sign in ",:")
        digits = block - np.uint8(ord("0")) < 10
        found += int(np.count_nonzero(colons)) + int(np.count_nonzero(commas[1:] & ~digits[:-1]))
        within = inside[-1]
        if found > MOST_VALUES:
            break
    return found


def check(body: Body, counted: Counted, limits: Limits) -> None:
    """Raises TooLarge for a list of items that is longer than is allowed."""
    most = getattr(limits, counted)
    for name, value in _lists(body):
        if len(value) > most and _lists_items(name, value):
            raise TooLarge(
                f"{len(value)} {counted} in one request; at most {most} (--{counted}); send several requests",
                param=name,
                code=f"too_many_{counted}",
            )


def _lists(record: msgspec.Struct, where: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Of the body, and of what it wraps its lists in."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, list):
            yield where + name, value
        elif isinstance(value, msgspec.Struct):
            yield from _lists(value, f"{where}{name}.")


def _lists_items(where: str, value: list[Any]) -> bool:
    name = where.rpartition(".")[2]
    conversations = name == "messages" and bool(value) and isinstance(value[0], list)
    return conversations or (name in _ITEMS and not isinstance(value[0], int | float))
