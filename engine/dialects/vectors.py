"""How a caller wants vectors: a number type, as a JSON list or as base64 of its bytes.

OpenAI names the form (`encoding_format`), vLLM the type (`embed_dtype`), Voyage both; Jina and Cohere
mix them in one field, where `base64` means float32. The arithmetic is in `engine/response.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from qvl.engine.dialects.fields import agreed

Dtype: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
Spelling: TypeAlias = Literal["float", "float32", "float16", "int8", "uint8", "binary", "ubinary", "base64"]
Form: TypeAlias = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
"""OpenAI's two, which are forms of any number type, and the types that Azure names in their place."""
Vector: TypeAlias = list[float] | str
"""On the wire; in memory a numpy row stands in for the list, which the JSON writer takes as it is."""


@dataclass(frozen=True, slots=True)
class Kind:
    dtype: Dtype = "float32"
    base64: bool = False


_FLOATS, _BASE64 = Kind(), Kind(base64=True)


class Encode(Protocol):
    """Turns the result's vectors into one wire value per item."""

    def __call__(self, kind: Kind) -> list[Vector]: ...


def spelled(name: Spelling) -> Kind:
    """Cohere's and Jina's single field."""
    match name:
        case "base64":
            return _BASE64
        case "float":
            return _FLOATS
        case dtype:
            return Kind(dtype)


def kind(encoding_format: Form | None, dtypes: Mapping[str, Spelling | None]) -> Kind:
    """One kind from a form and at most one number type, whichever field spells it."""
    given = {name: spelled(value) for name, value in dtypes.items() if value is not None}
    if encoding_format not in (None, "float", "base64"):
        given["encoding_format"], encoding_format = spelled(encoding_format), None
    # Of a type only `base64` is a form too: OpenAI's SDK asks for base64 beside any other, `float` with it.
    forms = {name: True for name, asked in given.items() if asked.base64}
    if encoding_format is not None:
        forms["encoding_format"] = encoding_format == "base64"
    dtype: Dtype | None = agreed({name: asked.dtype for name, asked in given.items()})
    return Kind(dtype or _FLOATS.dtype, bool(agreed(forms)))
