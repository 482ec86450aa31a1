"""What every dialect shares: the body's base class, decoding, and errors that name the field.

msgspec refuses a bad body with one sentence and a JSON path. `decode` turns that into a `BadRequest`
whose `param` is the path (`input[3].image`) and whose message says what would have been accepted:
the nearest field name, the listed values, or why a known field of another server is refused here.
"""

from __future__ import annotations

import difflib
import functools
import re
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from qvl.engine.dialects.shapes import alternatives, info
from qvl.engine.errors import BadRequest, short
from qvl.engine.protocol import Priority

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Urgency: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Priority
"""A word, or the number of vLLM and Cohere: 0 is usual, a larger one may wait longer."""

Truncate: TypeAlias = bool | Literal["NONE", "START", "END"]
"""Jina's and TEI's flag, or Cohere's and NVIDIA's word. Default: an over-long text is cut at its end."""


def priority(asked: int | Priority | None) -> Priority:
    if isinstance(asked, int):
        return "batch" if asked > 0 else "interactive"
    return asked or "interactive"


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A JSON object of a request; null is the same as absent, and what is neither nor known is an error."""


B = TypeVar("B", bound=Body)
T = TypeVar("T")

REFUSED = {
    "chat_template": "the template is part of the model; it is applied already",
    "media_io_kwargs": "set `fps` and `max_frames` instead, beside `input` or `messages` or in the item",
    "mm_processor_kwargs": "it may hold `fps`, `max_frames`, `do_sample_frames`: true, and `min_pixels`, "
    "`max_pixels` and `total_pixels` as the server has them",
}
"""Fields of other servers that would change the answer silently if they were ignored."""

_UNKNOWN_FIELD = "Object contains unknown field "
_UNKNOWN = re.compile(_UNKNOWN_FIELD + r"`(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_INVALID = re.compile(r"Invalid (?:enum )?value '?(.*?)'?", re.DOTALL)
_AT = re.compile(r"(.*?) - at `\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(?:\d+|\.\.\.)\]")
_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?:[^\\]|\\[^u])")
"""The first half of a surrogate pair without the second."""
_OWN = frozenset({"filter", "metadata"})
"""Members whose keys are the caller's."""
_LOOKED_AT = 1 << 20
"""Values of a body that may hold nulls: token ids do not, and there are fewer of all others."""
_SHOWN = 80
"""Characters of a caller's own text that an error repeats."""


@functools.cache
def _decoder(body: type[B]) -> msgspec.json.Decoder[B]:
    return msgspec.json.Decoder(body)


def decode(body: type[B], raw: bytes) -> B:
    """The body, or a `BadRequest` that names the part to mend."""
    try:
        decoded: B = _decoder(body).decode(raw)
        return decoded
    except msgspec.ValidationError as error:
        return _second(body, raw, str(error))
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8; JSON must be", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise BadRequest(_malformed(raw, str(error)), code="invalid_json") from None


def _second(body: type[B], raw: bytes, first: str) -> B:
    """A null asks for nothing, be it of a field that nobody here knows: read again without them. What is
    wrong with other bodies is told after one reading."""
    if not first.startswith(_UNKNOWN_FIELD) or b"null" not in raw:
        raise _explain(body, first) from None
    try:
        value = msgspec.json.decode(raw)
        # Voyage's `top_k` says whose answer is wanted, be it null.
        _drop_nulls(value, {"top_k"}.intersection(body.__struct_fields__))
        return msgspec.convert(value, body)
    except msgspec.ValidationError as error:
        raise _explain(body, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _explain(body, first) from None


def _drop_nulls(value: Any, kept: Collection[str] = ()) -> bool:
    """In place, whether there were any; but of what is to be kept, and of what has keys of the caller's."""
    ahead, dropped = [value], False
    for _ in range(_LOOKED_AT):
        if not ahead:
            break
        each = ahead.pop()
        if isinstance(each, dict):
            for name in [name for name, held in each.items() if held is None and name not in kept]:
                del each[name]
                dropped = True
            ahead += [held for name, held in each.items() if name not in _OWN]
        elif isinstance(each, list) and each and not isinstance(each[0], int | float):
            ahead += each
    return dropped


def _malformed(raw: bytes, message: str) -> str:
    if not raw:
        return "the body is empty"
    if raw.startswith(BOM_UTF8):
        return "the body begins with a byte order mark (BOM), which JSON must not: leave its three bytes out"
    # msgspec looks six bytes ahead, and takes the end of the body for the end of the pair.
    if "surrogate" in message or ("truncated" in message and _HALF.search(raw[-12:])):
        message = "a string holds half of a surrogate pair (\\ud800 to \\udfff): cut texts between characters"
        return f"the body is not valid JSON: {message}"
    return f"the body is not valid JSON: {short(message)}"


def convert(kind: type[B], value: object, where: str) -> B:
    """What was read as any JSON, as a body, or a `BadRequest` that names the part of `where` to mend."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if str(error).startswith(_UNKNOWN_FIELD) and _drop_nulls(value):
            return convert(kind, value, where)
        raise _explain(kind, str(error), where) from None


def near(name: str, kind: type[Body]) -> bool:
    """Whether a name is likely to be a misspelt field."""
    return len(name) <= _SHOWN and _is_near(name, kind)


@functools.lru_cache(1024)
def _is_near(name: str, kind: type[Body]) -> bool:
    # Nobody misspells limits of pixels: a record's `min_price` and `total_sales` would look like them.
    return bool(_near(name, [each for each in kind.__struct_fields__ if not each.endswith("_pixels")]))


def _explain(body: type[Body], message: str, where: str = "") -> BadRequest:
    found = _AT.fullmatch(message)
    text, path = found.groups() if found else (message, "")
    types = list(_at(info(body), path))
    param = (where + path).lstrip(".") or None
    if param in REFUSED:
        return BadRequest(
            f"`{param}` is not supported: {REFUSED[param]}", param=param, code="unsupported_field"
        )
    if unknown := _UNKNOWN.fullmatch(text):
        name = unknown[1]
        known = [
            field.encode_name
            for kind in types
            if isinstance(kind, inspect.StructType)
            for field in kind.fields
            if field.encode_name not in getattr(kind.cls, "UNTOLD", ())
        ]
        shown = short(name)
        where = f"{param}.{shown}" if param else shown
        return BadRequest(
            f"unknown field `{shown}`{_hint(name, known, 'known fields')}", param=where, code="unknown_field"
        )
    if missing := _MISSING.fullmatch(text):
        where = f"{param}.{missing[1]}" if param else missing[1]
        return BadRequest(f"{where}: is required", param=where, code="missing_field")
    if (invalid := _INVALID.fullmatch(text)) and (options := list(_options(types))):
        text = f"`{short(invalid[1])}` is not accepted{_hint(invalid[1], options, 'accepted')}"
    return BadRequest(f"{param or 'the body'}: {text}", param=param)


def _at(kind: inspect.Type, path: str) -> Iterator[inspect.Type]:
    """The types that a JSON path may have, through unions, structs and lists."""
    level = list(alternatives(kind))
    for step in _STEP.finditer(path):
        if step[1] is None:
            items = [kind.item_type for kind in level if isinstance(kind, inspect.ListType)]
        else:
            structs = [kind for kind in level if isinstance(kind, inspect.StructType)]
            items = [field.type for kind in structs for field in kind.fields if field.encode_name == step[1]]
        level = [kind for item in items for kind in alternatives(item)]
    return iter(level)


def _options(types: Iterable[inspect.Type]) -> Iterator[str]:
    for kind in types:
        if isinstance(kind, inspect.LiteralType):
            yield from (str(value) for value in kind.values)


def _hint(name: str, known: Iterable[str], label: str) -> str:
    known = list(dict.fromkeys(known))
    meant = _near(name, known)
    return f"; did you mean `{meant[0]}`?" if meant else f"; {label}: {', '.join(sorted(known))}"


def _near(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name[:_SHOWN], known, n=1)


def one_of(fields: dict[str, Any]) -> str:
    """The name of the only field that is set; more or fewer is an error."""
    given = [name for name, value in fields.items() if value is not None]
    if len(given) == 1:
        return given[0]
    names = ", ".join(f"`{name}`" for name in fields)
    if not given:
        raise BadRequest(
            f"nothing to do: give one of {names}", param=next(iter(fields)), code="missing_field"
        )
    raise BadRequest(f"give only one of {names}", param=given[1], code="conflicting_fields")


def agreed(fields: Mapping[str, T | None]) -> T | None:
    """The value of a setting that has several names; values that differ are an error."""
    given = {name: value for name, value in fields.items() if value is not None}
    if len(set(given.values())) > 1:
        raise BadRequest(
            f"{' and '.join(f'`{name}`' for name in given)} contradict each other; keep one of them",
            param=list(given)[1],
            code="conflicting_fields",
        )
    return next(iter(given.values()), None)


def cuts(truncate: Truncate | None, truncation: bool | None = None) -> bool:
    """Whether an over-long text is cut at its end, rather than refused."""
    refuse(truncate == "START", "truncate", "this model cuts the end, as in its training; use END or NONE")
    return truncate not in (False, "NONE") and truncation is not False


def refuse(present: object, param: str, reason: str) -> None:
    """Refuse a field whose value would ask for another answer than this server's."""
    if present:
        raise BadRequest(f"`{param}` is not supported: {reason}", param=param, code="unsupported_field")
