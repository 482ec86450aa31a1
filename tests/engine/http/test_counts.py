"""Long lists are refused by their length: nothing is made of what they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qvl.engine.api import counts
from qvl.engine.config import Limits
from qvl.engine.dialects import cohere, dashscope, items, messages, records
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

    for dialect in (cohere, dashscope, items, messages, records):
        monkeypatch.setattr(dialect, "Content", made)
    monkeypatch.setattr(counts, "MOST_PARTS", 8)
    monkeypatch.setattr(counts, "MOST_KEYS", 20)
    monkeypatch.setattr(counts, "MOST_IDS", 8)
    return make(limits=Limits(items=4, documents=4))


def refused(client: Client, route: str, body: dict[str, Any]) -> tuple[int, str, str]:
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
    ("item", "where"),
    [
        ({"text": ["a"] * 9}, ".text"),
        ({"image": ["a"] * 9}, ".image"),
        ({"image": [{"url": "a"}] * 9}, ".image"),
        ({"video": ["a"] * 9}, ".video"),
        ({"video": [["a"]] * 5}, ".video[3]"),
        ({"video": [["a"] * 9]}, ".video[0]"),
        ({"content": [PART] * 9}, ".content"),
        ({"content": [{"type": "video", "video": ["a"] * 9}]}, ".content[0].video"),
    ],
)
def test_parts(client: Client, item: dict[str, Any], where: str) -> None:
    over = 413, "too_many_parts"
    assert refused(client, E, {"input": item}) == (*over, f"input{where}")
    assert refused(client, E, {"input": ["a", item]}) == (*over, f"input[1]{where}")
    assert refused(client, R, {"query": item, "documents": ["a"]}) == (*over, f"query{where}")
    assert refused(client, "/v2/rerank", {"query": "a", "documents": item}) == (*over, f"documents{where}")
    assert refused(client, "/v1/search", {"query": item}) == (*over, f"query{where}")


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ({f"key {i}": 1 for i in range(21)}, ""),
        ({"text": "a", "more": ["a"] * 9}, ".more"),
        ({"text": "a", "more": [{"deep": ["a"] * 8}]}, ".more[0].deep"),
        ({"text": "a", "more": [{str(i): i for i in range(9)}] * 3}, ".more[2]"),
    ],
)
def test_records(client: Client, record: dict[str, Any], where: str) -> None:
    body = {"query": "a", "documents": ["a", record]}
    assert refused(client, R, body) == (413, "too_many_parts", f"documents[1]{where}")


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


def test_parts_of_all_items_together(client: Client) -> None:
    body = {"input": [{"text": ["a"] * 3}] * 3}
    assert refused(client, E, body) == (413, "too_many_parts", "input[2].text")


def test_messages(client: Client) -> None:
    over = 413, "too_many_parts"
    long = {**USER, "content": [PART] * 9}
    assert refused(client, E, {"messages": [long]}) == (*over, "messages[0].content")
    assert refused(client, E, {"messages": [[long]]}) == (*over, "messages[0][0].content")
    assert refused(client, E, {"messages": [[USER] * 9]}) == (*over, "messages[0]")


def test_token_ids(client: Client) -> None:
    assert refused(client, E, {"input": [1] * 9}) == (413, "too_many_ids", "input")
    assert refused(client, E, {"input": ["a", [1] * 9]}) == (413, "too_many_ids", "input[1]")
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
