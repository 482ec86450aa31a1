"""What an `input` lists: texts, items, token ids, or vLLM's messages, told from its first element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec

from qvl.engine.dialects import items, messages
from qvl.engine.errors import BadRequest, TooLarge
from qvl.engine.protocol import Content, Tokens

TokenId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
TokenIds: TypeAlias = Annotated[list[TokenId], msgspec.Meta(min_length=1)]
MOST_IDS = 1 << 18
"""Token ids of one item: what the longest context of any Qwen3-VL holds."""
Modality: TypeAlias = Literal["text", "image", "text_image", "audio"]


class Entry(items.Item):
    """An item; with a `role`, a message of a conversation (JSON tells the two apart by nothing else)."""

    UNTOLD: ClassVar = frozenset({"role", "name"})
    """Of no use to an item."""
    role: messages.Role | None = None
    name: str | None = None


Within: TypeAlias = Annotated[list[TokenId | Entry], msgspec.Meta(min_length=1)]
"""Token ids, or the messages of one conversation."""
Input: TypeAlias = str | Entry | Annotated[list[str | TokenId | Within | Entry], msgspec.Meta(min_length=1)]


def entries(
    value: Any, where: str, modalities: Sequence[Modality] = ("text",)
) -> tuple[Content | Tokens, ...]:
    """The items of an input; of the modality `image` its strings are images."""
    if not isinstance(value, list):
        return (_entry(value or "", where, modalities[0]),)
    first = value[0]
    if isinstance(first, int):
        return (_tokens(value, where),)
    if _is_message(first) or (isinstance(first, list) and _is_message(first[0])):
        return messages.conversations([_turns(each, f"{where}[{i}]") for i, each in enumerate(value)], where)
    return tuple(
        _entry(each, f"{where}[{i}]", modalities[i % len(modalities)]) for i, each in enumerate(value)
    )


def _entry(value: Any, where: str, modality: Modality) -> Content | Tokens:
    if isinstance(value, str):
        return Content(images=(value,), where=where) if modality == "image" else items.content(value, where)
    if isinstance(value, list):
        return _tokens(value, where)
    if isinstance(value, int):
        raise BadRequest(
            f"{where}: a token id among other items; send them as a list of their own", param=where
        )
    if isinstance(value, Entry) and not value.role is value.name is None:
        raise BadRequest(
            f"{where}: messages stand in a list of them, without other items: "
            '[{"role": "user", "content": …}]',
            param=where,
            code="unsupported_message",
        )
    return items.content(value, where)


def _tokens(ids: list[Any], where: str) -> Tokens:
    if len(ids) > MOST_IDS:
        raise TooLarge(
            f"{len(ids)} token ids in one item; at most {MOST_IDS}: send fewer, or the text itself",
            param=where,
            code="too_many_ids",
        )
    if set(map(type, ids)) != {int}:
        raise BadRequest(
            f"{where}: this list is one item, or one conversation: a list of token ids holds nothing but "
            "integers, one of messages nothing but objects with a `role`",
            param=where,
        )
    return Tokens(ids=tuple(ids), where=where)


def _is_message(value: Any) -> bool:
    return isinstance(value, Entry) and value.role is not None


def _turns(value: Any, where: str) -> messages.Message | list[messages.Message]:
    """A message, or those of a conversation."""
    if isinstance(value, list):
        return [_message(each, f"{where}[{i}]") for i, each in enumerate(value)]
    return _message(value, where)


def _message(value: Any, where: str) -> messages.Message:
    if not isinstance(value, Entry) or value.role is None:
        raise BadRequest(f"{where}: among messages each has a `role`", param=where, code="missing_field")
    for name in items.Item.__struct_fields__:
        if name != "content" and getattr(value, name) is not None:
            raise BadRequest(
                f"{where}: a message has no `{name}`; what it holds is its `content`",
                param=f"{where}.{name}",
                code="unknown_field",
            )
    return messages.Message(role=value.role, content=value.content, name=value.name)
