"""What asks for nothing, and what tells enough: a body with a null of a field that nobody here knows is read
again, and a part tells its `type` by what it holds. All else is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from qvl.engine.dialects import cohere, fields, openai, rerank, search, voyage
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.errors import BadRequest
from qvl.engine.response import dump

TEXT = {"type": "text", "text": "a"}
PART = {**TEXT, "image_url": None, "video_url": None}
"""As a client writes it whose parts are one class."""


EMBED = (openai.EmbeddingsBody, openai.parse)
RERANK = (rerank.RerankBody, rerank.parse)
RULES = {"year": {"gte": 1e3, "lt": 2000}, "kind": ["a"]}
NULL = {"x": None}
BODIES: list[tuple[tuple[type[Body], Any], Any, Any]] = [
    (EMBED, {"input": "a"}, {"input": "a", "service_tier": None, "": None}),
    (EMBED, {"input": ["a", {"text": "b"}]}, {"input": ["a", {"text": "b", **NULL}]}),
    (EMBED, {"input": [{"content": [TEXT]}]}, {"input": [{"content": [PART]}]}),
    (EMBED, {"input": [[1, 2]]}, {"input": [[1, 2]], **NULL}),
    (
        EMBED,
        {"messages": [[{"role": "user", "content": [TEXT]}]]},
        {"messages": [[{"role": "user", "content": [PART], "tool_calls": None}]]},
    ),
    (
        (voyage.EmbedBody, voyage.parse),
        {"inputs": [{"content": [TEXT]}]},
        {"inputs": [{"content": [PART]}]},
    ),
    ((cohere.EmbedBody, cohere.parse_embed), {"texts": ["a"]}, {"texts": ["a"], "user_location": None}),
    (
        RERANK,
        {"query": "q", "documents": ["a", {"image": "x"}, {"text": "b"}]},
        {"query": "q", "documents": ["a", {"image": "x", **NULL}, {"text": "b", **NULL}], **NULL},
    ),
    (
        (search.SearchBody, search.parse),
        {"query": "q", "filter": RULES},
        {"query": "q", "filter": RULES, **NULL},
    ),
]


@pytest.mark.parametrize(("dialect", "plain", "more"), BODIES)
def test_it_is_as_if_it_were_not_there(dialect: tuple[type[Body], Any], plain: Any, more: Any) -> None:
    body, parse = dialect
    assert parse(decode(body, dump(more))) == parse(decode(body, dump(plain)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "service_tier": None, "user_location": "x"}, "user_location"),
        ({"input": "a", "service_tier": None, "dimensions": "8"}, "dimensions"),
        ({"input": [{"text": "a", "x": None, "y": 1}]}, "input[0].y"),
        ({"input": [{"content": [PART, {**PART, "image_url": "x"}]}]}, "input[0].content[1].image_url"),
        ({"x": None, "input": ["a", None]}, "input[1]"),
        ({"x": None, "chat_template": "y", "input": "a"}, "chat_template"),
    ],
)
def test_what_is_refused_beside_it(body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        openai.parse(decode(openai.EmbeddingsBody, dump(body)))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"text": "a"}, "text"),
        ({"text": "a", "image_url": None}, "text"),
        ({"image_url": {"url": "x"}}, "image_url"),
        ({"image": "x", "uuid": "u"}, "image"),
        ({"image_base64": "x"}, "image_base64"),
        ({"video_url": "x"}, "video_url"),
        ({"video": ["x", "y"]}, "video"),
        ({"video_base64": "x"}, "video_base64"),
    ],
)
def test_a_part_needs_no_type(part: dict[str, Any], kind: str) -> None:
    told = {name: value for name, value in part.items() if value is not None} | {"type": kind}
    for (body, parse), around in (
        (EMBED, lambda it: {"input": {"content": [TEXT, it]}}),
        (EMBED, lambda it: {"messages": [{"role": "user", "content": [it]}]}),
        (RERANK, lambda it: {"query": [it], "documents": [[it, TEXT], {"content": [it]}]}),
    ):
        assert parse(decode(body, dump(around(part)))) == parse(decode(body, dump(around(told))))


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({}, "type", "missing_field"),
        ({"text": None}, "type", "missing_field"),
        ({"text": "a", "image": "x"}, "type", "missing_field"),
        ({"type": "image", "text": "a"}, "image", "missing_field"),
        ({"type": "text", "image": "x", "video": "y"}, "text", "missing_field"),
        ({"type": "text", "text": "a", "image": "x"}, "image", "unknown_field"),
        ({"txt": "a"}, "txt", "unknown_field"),
    ],
)
def test_what_is_not_one_thing(part: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        openai.parse(decode(openai.EmbeddingsBody, dump({"input": [{"content": [TEXT, part]}]})))
    assert (caught.value.param, caught.value.code) == (f"input[0].content[1].{param}", code)


@pytest.mark.parametrize(
    "rest", [b'"input": 1e999}', b'"input": ' + b"[" * 100_000, b'"input": "\\ud800"}', b""]
)
def test_what_cannot_be_read_is_refused_as_it_was(rest: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(openai.EmbeddingsBody, b'{"service_tier": null, ' + rest)


def test_nulls_of_the_callers_own_keys_are_theirs() -> None:
    """A filter's null is a rule that is none."""
    with pytest.raises(BadRequest, match=r"filter\.kind"):
        search.parse(decode(search.SearchBody, dump({"query": "q", "x": None, "filter": {"kind": None}})))
    body = decode(openai.EmbeddingsBody, dump({"input": "a", "x": None, "metadata": {"trace": None}}))
    assert body.metadata == {"trace": None}


def test_voyages_null_still_asks_for_its_answer() -> None:
    body = decode(rerank.RerankBody, dump({"query": "q", "documents": ["a"], "top_k": None, "x": None}))
    assert body.top_k is None


def test_it_asks_nothing_where_nobody_knows_it() -> None:
    assert decode(openai.EmbeddingsBody, dump({"input": "a", "top_k": None})).input == "a"


def test_an_item_of_an_index_is_read_as_it_was_when_it_came() -> None:
    stored = dump({"content": [{"type": "text", "text": "a", "x": None}]})
    assert search.contents([stored])[0].texts == ("a",)


def test_a_usual_body_and_a_bad_one_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(raw: bytes) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(fields.msgspec.json, "decode", read)
    assert decode(openai.EmbeddingsBody, b'{"input": "null", "model": null}').input == "null"
    for bad in (b'{"input": 1.5, "x": null}', b'{"input": "a", "x": 1}'):
        with pytest.raises(BadRequest):
            decode(openai.EmbeddingsBody, bad)


def test_nobody_looks_for_nulls_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor among token ids."""
    monkeypatch.setattr(fields, "_LOOKED_AT", 8)
    ids = decode(openai.EmbeddingsBody, dump({"x": None, "input": [[1] * 100] * 3, "user": None}))
    assert ids.input == [[1] * 100] * 3
    with pytest.raises(BadRequest) as caught:
        decode(openai.EmbeddingsBody, dump({"x": None, "input": [{"y": None}] * 8}))
    assert caught.value.param == "input[0].y"
