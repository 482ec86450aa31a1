"""Long lists are refused by their length: nothing is made of what they hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from qvl.engine.api import counts
from qvl.engine.config import Limits
from qvl.engine.dialects import cohere, dashscope, inputs, items, messages, parts, records
from tests.engine.http.conftest import Client

E, R, S = "/v1/embeddings", "/v1/rerank", "/score"
DE = "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
DR = "/api/v1/services/rerank/text-rerank/text-rerank"
MANY = counts.MOST_VALUES
PART = {"type": "text", "text": "a"}
USER = {"role": "user", "content": "a"}


@pytest.fixture
def client(make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> Client:
    """Of a server that makes no item of anything."""

    def made(**_: object) -> None:
        raise AssertionError("an item was made")

    for dialect in (cohere, dashscope, inputs, items, messages, parts, records):
        monkeypatch.setattr(dialect, "Content", made)
    monkeypatch.setattr(counts, "MOST_VALUES", 48)
    monkeypatch.setattr(inputs, "MOST_IDS", 8)
    return make(limits=Limits(items=4, documents=4))


def refused(client: Client, route: str, body: dict[str, Any]) -> tuple[int, str, str | None]:
    answer = client.post(route, json=body)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("route", "name", "item"),
    [
        (E, "input", "a"),
        (E, "input", {}),
        (E, "input", [1]),
        (E, "messages", [USER]),
        ("/v2/embed", "texts", "a"),
        ("/v2/embed", "images", "a"),
        ("/v2/embed", "inputs", {}),
        ("/v1/embed", "texts", "a"),
        ("/embed", "inputs", "a"),
        ("/v1/multimodalembeddings", "inputs", {}),
    ],
)
def test_items(client: Client, route: str, name: str, item: Any) -> None:
    assert refused(client, route, {name: [item] * 5}) == (413, "too_many_items", name)


@pytest.mark.parametrize("route", [R, "/v2/rerank", "/rerank"])
def test_documents(client: Client, route: str) -> None:
    body = {"query": "a", "documents": [{}] * 5}
    assert refused(client, route, body) == (413, "too_many_documents", "documents")
    assert "5 documents in one request; at most 4 (--documents)" in client.post(route, json=body).text


@pytest.mark.parametrize(
    ("route", "name", "code"), [(DE, "contents", "too_many_items"), (DR, "documents", "too_many_documents")]
)
def test_lists_in_an_envelope(client: Client, route: str, name: str, code: str) -> None:
    """Those of DashScope."""
    query = {"query": "a"} if route == DR else {}
    body = {"input": {**query, name: [{"text": "a"}] * 5}}
    assert refused(client, route, body) == (413, code, f"input.{name}")


@pytest.mark.parametrize("route", ["/similarity", "/", "/embed"])
def test_sentences(client: Client, route: str) -> None:
    body = {"inputs": {"source_sentence": "a", "sentences": ["a"] * 5}}
    assert refused(client, route, body) == (413, "too_many_items", "inputs.sentences")


def test_passages(client: Client) -> None:
    body = {"query": {"text": "a"}, "passages": [{"text": "a"}] * 5}
    assert refused(client, "/v1/ranking", body) == (413, "too_many_documents", "passages")


@pytest.mark.parametrize("left", ["queries", "text_1", "data_1"])
@pytest.mark.parametrize("right", ["documents", "items", "text_2", "data_2"])
def test_pairs(client: Client, left: str, right: str) -> None:
    assert refused(client, S, {left: "a", right: ["a"] * 5}) == (413, "too_many_documents", right)
    assert refused(client, S, {left: ["a"] * 5, right: "a"}) == (413, "too_many_documents", left)


@pytest.mark.parametrize(
    "item",
    [
        {"text": ["a"] * 50},
        {"image": ["a"] * 50},
        {"image": [{"url": "a"}] * 25},
        {"video": ["a"] * 50},
        {"video": [["a"]] * 50},
        {"video": [["a"] * 50]},
        {"content": [PART] * 17},
        {"content": [{"type": "video", "video": ["a"] * 50}]},
    ],
)
def test_parts(client: Client, item: dict[str, Any]) -> None:
    for route, body in (
        (E, {"input": item}),
        (E, {"input": ["a", item]}),
        (R, {"query": item, "documents": ["a"]}),
        ("/v2/rerank", {"query": "a", "documents": item}),
        ("/v1/search", {"query": item}),
    ):
        assert refused(client, route, body) == (413, "too_many_values", None), route


@pytest.mark.parametrize(
    "record",
    [
        {f"key {i}": 1 for i in range(49)},
        {"text": "a", "more": ["a"] * 49},
        {"text": "a", "more": [{"deep": ["a"] * 49}]},
        {"text": "a", "more": [{str(i): i for i in range(9)}] * 6},
    ],
)
def test_records(client: Client, record: dict[str, Any]) -> None:
    body = {"query": "a", "documents": ["a", record]}
    assert refused(client, R, body) == (413, "too_many_values", None)


@pytest.mark.parametrize(
    "conversations", [[{**USER, "content": [PART] * 17}], [[{**USER, "content": [PART] * 17}]], [[USER] * 17]]
)
def test_messages(client: Client, conversations: list[Any]) -> None:
    assert refused(client, E, {"messages": conversations}) == (413, "too_many_values", None)


def test_as_many_images_as_all_items_may_have(make: Callable[..., Client]) -> None:
    """In the longest words for them."""
    limits = Limits()
    image = {"type": "image_url", "image_url": {"url": "a", "detail": "low"}}
    item = {"role": "user", "content": [image] * limits.images}
    raw = json.dumps({"messages": [[item]] * limits.items}).encode()
    asyncio.run(counts.check_raw(raw))


def test_lists_of_no_items_have_no_limit_of_theirs(make: Callable[..., Client]) -> None:
    client = make(limits=Limits(items=1, documents=1))
    for route, body in (
        (E, {"messages": [{"role": "system", "content": "a"}, USER]}),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["float", "int8"]}),
        (R, {"query": "a", "documents": [{"title": "a", "body": "b"}], "rank_fields": ["title", "body"]}),
    ):
        assert client.post(route, json=body).status_code == 200, route


def test_a_record_may_be_deep(make: Callable[..., Client]) -> None:
    deep = b'{"text": "a", "more": ' + b"[" * 800 + b"]" * 800 + b"}"
    answer = make().post(R, content=b'{"query": "a", "documents": [' + deep + b"]}")
    assert answer.status_code == 200


def test_token_ids(client: Client) -> None:
    assert refused(client, E, {"input": [1] * 9}) == (413, "too_many_ids", "input")
    assert refused(client, E, {"input": [[1], [1] * 9]}) == (413, "too_many_ids", "input[1]")
    assert refused(client, "/embed", {"inputs": [1] * 9}) == (413, "too_many_ids", "inputs")
    assert client.post(E, json={"input": [[1] * 8] * 4}).status_code == 200


@pytest.mark.parametrize("value", [b"{}", b'""', b"null ", b"[1]", b'{"fps": 1}', b'"\\""', b'"\\\\"'])
def test_values(make: Callable[..., Client], value: bytes) -> None:
    """Refused before any of them is made."""
    body = b'{"input": [' + b",".join([value] * (MANY + 100)) + b"]}"
    answer = make().post(E, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_values")


def test_keys(make: Callable[..., Client]) -> None:
    """Of numbers, whose commas do not count."""
    body = b'{"input": "a", "metadata": {' + b",".join(b'"%x": 1' % i for i in range(MANY)) + b"}}"
    answer = make().post(E, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_values")


@pytest.mark.parametrize(
    ("item", "status"),
    [
        (b'"' + b"a, " * (MANY + 2) + b'"', 200),
        (b'"\\" ' + b"\\\\,  " * (MANY + 2) + b'"', 200),
        (b"[" + b", ".join([b"100"] * (MANY + 2)) + b"]", 413),
    ],
    ids=["text", "escapes", "ids"],
)
def test_what_is_no_value_of_its_own(make: Callable[..., Client], item: bytes, status: int) -> None:
    answer = make().post(E, content=b'{"input": [' + item + b"]}")
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "too_many_ids"
