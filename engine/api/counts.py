"""How much a decoded body lists, before anything walks its lists: a MiB of JSON can hold 300,000 items."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import inspect

from qvl.engine.config import Limits
from qvl.engine.dialects.fields import Body
from qvl.engine.dialects.shapes import alternatives
from qvl.engine.errors import TooLarge

MOST_PARTS = 1 << 17
"""Texts, images, videos and frames of all items of a request; twice the images that 2,048 items may have."""
MOST_KEYS = 3 * MOST_PARTS
"""Of all records among them."""
MOST_IDS = 1 << 18
"""Token ids of one item: what the longest context of any Qwen3-VL holds."""
MOST_VALUES = 1 << 21
"""Keys and values of a body's JSON, numbers not counted: they are small, and a text's token ids are many."""
_BLOCK = 1 << 20
_PLAIN = (str, int, float, type(None), msgspec.Raw)
"""What holds nothing; to ask whether something is a Struct takes ten times as long."""
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
    """Raises TooLarge. A list is only looked into once its length is allowed."""
    most = getattr(limits, counted)
    parts = _Parts()
    for name, value in _fields(body):
        if not isinstance(value, list) or not _lists_items(name, value):
            parts.count(value, name)
            continue
        if len(value) > most:
            raise TooLarge(
                f"{len(value)} {counted} in one request; at most {most} (--{counted}); send several requests",
                param=name,
                code=f"too_many_{counted}",
            )
        for i, each in enumerate(value):
            if not isinstance(each, _PLAIN):
                parts.count(each, f"{name}[{i}]")


def _fields(record: msgspec.Struct, where: str = "") -> Iterator[tuple[str, Any]]:
    """Of the body, and of what it wraps its lists in."""
    for name in _listing(type(record)):
        value = getattr(record, name)
        if isinstance(value, msgspec.Struct):
            yield from _fields(value, f"{where}{name}.")
        elif not isinstance(value, _PLAIN):
            yield where + name, value


def _lists_items(where: str, value: list[Any]) -> bool:
    name = where.rpartition(".")[2]
    conversations = name == "messages" and bool(value) and isinstance(value[0], list)
    return conversations or (name in _ITEMS and not _are_ids(value))


class _Parts:
    """Of one request."""

    def __init__(self) -> None:
        self._parts = self._keys = 0

    def count(self, value: Any, where: str) -> None:
        # Any JSON may stand in a record, nested as deep as the stack.
        ahead = deque([(value, where)])
        while ahead:
            value, where = ahead.popleft()
            if isinstance(value, dict):
                self._keys += len(value)
                _bounded(self._keys, MOST_KEYS, "keys of records", where)
                named = [(name[:80], each) for name, each in value.items() if not isinstance(each, _PLAIN)]
                ahead += [(each, f"{where}.{name}") for name, each in named]
            elif not isinstance(value, list):
                kind: type[msgspec.Struct] = type(value)
                fields = ((name, getattr(value, name)) for name in _listing(kind))
                ahead += [(each, f"{where}.{name}") for name, each in fields if not isinstance(each, _PLAIN)]
            elif _are_ids(value):
                _check_ids(len(value), where)
            else:
                self._parts += len(value)
                _bounded(self._parts, MOST_PARTS, "texts, images, videos and frames", where)
                held = [(i, each) for i, each in enumerate(value) if not isinstance(each, _PLAIN)]
                ahead += [(each, f"{where}[{i}]") for i, each in held]


def _bounded(count: int, most: int, what: str, where: str) -> None:
    if count > most:
        raise TooLarge(
            f"over {most} {what} in one request; send several requests", param=where, code="too_many_parts"
        )


@functools.cache
def _listing(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that may hold a list or a record, however deep."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return tuple(each.name for each in info.fields if _may_list(each.type))


def _may_list(info: inspect.Type) -> bool:
    return any(
        isinstance(kind, inspect.ListType | inspect.DictType)
        or (isinstance(kind, inspect.StructType) and bool(_listing(kind.cls)))
        for kind in alternatives(info)
    )


def _are_ids(values: list[Any]) -> bool:
    """Of a mixture, which is refused, this is as good a guess."""
    return bool(values) and isinstance(values[0], int | float)


def _check_ids(count: int, where: str) -> None:
    if count > MOST_IDS:
        raise TooLarge(
            f"{count} token ids in one item; at most {MOST_IDS}: send fewer, or the text itself",
            param=where,
            code="too_many_ids",
        )
