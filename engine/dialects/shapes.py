"""What msgspec knows of a body's type: what JSON may stand where."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import msgspec
from msgspec import inspect


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
