"""What msgspec knows of a body's type: what JSON may stand where, so what was left out or asks nothing."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import inspect

MOST = 1 << 14
"""Objects and lists of a body that are looked into."""
_HOLDING = (dict, list)


@functools.cache
def info(body: type[msgspec.Struct]) -> inspect.Type:
    """Takes milliseconds to make."""
    return inspect.type_info(body)


def alternatives(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The types that a type is a union of."""
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from alternatives(each)
    elif isinstance(kind, inspect.Metadata):
        yield from alternatives(kind.type)
    else:
        yield kind


def complete(value: Any, kind: inspect.Type) -> None:
    """Writes what was meant into what was read as plain JSON.

    Null members that no struct at their place knows are taken out, and a part that has no `type` gets that of
    the only medium or text in it. An object whose keys are the caller's own keeps all of them.
    """
    ahead = deque([(value, [kind])])
    for _ in range(MOST):
        if not ahead:
            return
        value, kinds = ahead.popleft()
        kinds = [each for kind in kinds for each in alternatives(kind)]
        if isinstance(value, list):
            items = [each.item_type for each in kinds if isinstance(each, inspect.ListType)]
            ahead += [(each, items) for each in islice(value, MOST) if isinstance(each, _HOLDING)]
        elif isinstance(value, dict) and (records := _records(kinds)):
            _make_raw(value, records)
        elif isinstance(value, dict):
            _tag(value, kinds)
            known = _known(value, kinds)
            for name in [name for name, each in value.items() if each is None and name not in known]:
                del value[name]
            ahead += [(value[name], known[name]) for name in known if isinstance(value.get(name), _HOLDING)]


def _records(kinds: Iterable[inspect.Type]) -> list[inspect.DictType]:
    return [each for each in kinds if isinstance(each, inspect.DictType)]


def _make_raw(value: dict[str, Any], records: Iterable[inspect.DictType]) -> None:
    """What is to be read later, which `msgspec.convert` only takes as it comes from a body."""
    if any(
        isinstance(each, inspect.RawType) for record in records for each in alternatives(record.value_type)
    ):
        for name, each in value.items():
            value[name] = msgspec.Raw(msgspec.json.encode(each))


def _tag(value: dict[str, Any], kinds: Iterable[inspect.Type]) -> None:
    """A part's type is also the name of its member: `{"text": …}` is one of `"type": "text"`."""
    tags = [(each.tag_field, each.tag) for each in kinds if isinstance(each, inspect.StructType)]
    found = [(field, str(tag)) for field, tag in tags if field and field not in value]
    held = [(field, tag) for field, tag in found if value.get(tag) is not None]
    if len(held) == 1:
        value.update(held)


def _known(value: dict[str, Any], kinds: Iterable[inspect.Type]) -> dict[str, list[inspect.Type]]:
    """The members that an object may have, and their types; of tagged structs those of the one that it is."""
    known: dict[str, list[inspect.Type]] = {}
    for each in kinds:
        if isinstance(each, inspect.StructType) and (
            each.tag_field is None or value.get(each.tag_field) == each.tag
        ):
            for field in each.fields:
                known.setdefault(field.encode_name, []).append(field.type)
            if each.tag_field:
                known.setdefault(each.tag_field, [])
    return known
