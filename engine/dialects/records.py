"""Documents of a rerank request that may be records of texts, as Cohere's are.

Of a record with keys that an item has not `rank_fields` are read, one below the other, or `text` alone. A
field that is there and is no text is refused, and so are `image` and `video`: what they hold is seen in an
item, without `rank_fields`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from qvl.engine.dialects import items, parts
from qvl.engine.dialects.fields import convert, near, refuse
from qvl.engine.dialects.items import Document
from qvl.engine.errors import BadRequest, short
from qvl.engine.protocol import Content

MOST_MISSPELT = 4
"""Keys of a record that are compared with an item's; one of more keys is a record."""
_MEDIA = frozenset({"image", "video"})
_OF_ITEMS = frozenset((*Document.__struct_fields__, "instruction"))
_RECORD = {"description": "a `Document`; or a record of texts, of which `rank_fields` or `text` are read"}
# Read as anything first: its keys are the caller's own.
Record: TypeAlias = Annotated[dict[str, Any], msgspec.Meta(extra_json_schema=_RECORD)]
Records: TypeAlias = str | Record | Annotated[list[str | Record | parts.Parts], msgspec.Meta(min_length=1)]
"""A string or an object alone is one document; a list in the list is one of parts."""
RankFields: TypeAlias = Annotated[list[str], msgspec.Meta(min_length=1)] | None


def documents(value: Records, fields: list[str] | None) -> tuple[Content, ...]:
    """Those of a request's `documents`, by its `rank_fields`."""
    media = _MEDIA.intersection(fields or ())
    refuse(media, "rank_fields", "its fields are read as texts; without it an item's image or video is seen")
    if isinstance(value, list):
        return tuple(_document(each, f"documents[{i}]", fields) for i, each in enumerate(value))
    return (_document(value, "documents", fields),)


def _document(value: str | Record | list[parts.Part], where: str, fields: list[str] | None) -> Content:
    if not isinstance(value, dict):
        return items.content(value, where)
    if _is_item(value, fields):
        return items.content(convert(Document, value, where), where)
    present = [name for name in fields or ["text"] if value.get(name) is not None]
    texts = [_text(value[name], f"{where}.{short(name)}") for name in present]
    if not texts:
        raise BadRequest(f"{where}: it has none of the `rank_fields`", param=where, code="missing_field")
    return Content(texts=("\n".join(texts),), where=where)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: a field to rank by must be a text", param=where)
    return value


def _is_item(record: Record, fields: list[str] | None) -> bool:
    """Whether it is to be one, be it that a key is misspelt."""
    if fields not in (None, ["text"]):
        return False
    foreign = record.keys() - _OF_ITEMS
    only_text = isinstance(record.get("text"), str) and len(record) - len(foreign) == 1
    misspelt = len(foreign) <= MOST_MISSPELT and any(near(name, Document) for name in foreign)
    return not foreign or not only_text or misspelt
