"""The client against a real HTTP server: arrays out, splitting, errors, retries."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from qvl.engine.client import AsyncClient, Client, Policy
from qvl.engine.errors import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    QvlError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

QUICK = Policy(backoff=0.001, longest_wait=0.002)
ERROR = {"message": "later", "type": "overloaded_error", "code": "overloaded", "param": None}
BODY = {"error": ERROR, "detail": "later"}

Start = Callable[..., Any]


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, (200, 30, 30))


def test_vectors_keep_their_order_over_many_requests(fake: Start) -> None:
    server = fake(delay=0.01)
    texts = [f"text {i}" for i in range(25)]
    with Client(server.url, policy=Policy(items=4)) as client:
        vectors = client.embed(texts)
        alone = np.concatenate([client.embed(text) for text in texts])

    async def together() -> Any:
        async with AsyncClient(server.url, policy=Policy(items=4, concurrency=3)) as client:
            return await asyncio.gather(*(client.embed(texts) for _ in range(3)))

    assert vectors.dtype == np.float32
    assert vectors.shape == (25, 8)
    np.testing.assert_array_equal(vectors, alone)
    for each in asyncio.run(together()):
        np.testing.assert_array_equal(each, vectors)


def test_long_lists_are_split_by_count_and_by_bytes(fake: Start) -> None:
    server = fake()
    with Client(server.url, policy=Policy(items=3, body_bytes=100)) as client:
        client.embed(["a"] * 7 + ["b" * 60] * 3 + ["c" * 500])
    assert [len(entry["body"]["input"]) for entry in server.log()] == [3, 3, 2, 1, 1, 1]


def test_options_are_sent_only_when_given(fake: Start) -> None:
    server = fake(key="secret")
    with Client(server.url, key="secret") as client:
        client.embed(["a"])
        client.embed(["a"], instruction="Find.", dimensions=4, model="m")
    first, second = server.log()
    assert first["key"] == "Bearer secret"
    assert first["body"] == {"input": ["a"], "encoding_format": "base64", "on_error": "fail"}
    assert second["body"] == first["body"] | {"instruction": "Find.", "dimensions": 4, "model": "m"}


def test_nothing_in_is_nothing_out(fake: Start) -> None:
    server = fake()
    with Client(server.url) as client:
        assert client.embed([], dimensions=4).shape == (0, 4)
        assert client.rerank("q", []) == []
    assert server.log() == []


def test_rerank_merges_parts_and_sorts(fake: Start) -> None:
    server = fake()
    documents = ["a b", "x", {"text": "a b c"}, "a", "b a"]
    with Client(server.url, policy=Policy(documents=2)) as client:
        ranked = client.rerank("a b c", documents)
        best = client.rerank("a b c", documents, top_n=1, raw_scores=True)
    assert [each.index for each in ranked] == [2, 0, 4, 3, 1]
    assert ranked[0].score == pytest.approx(1 / (1 + np.exp(-3)))
    assert [(each.index, each.score) for each in best] == [(2, 3.0)]
    assert all(entry["body"]["raw_scores"] is True for entry in server.log())


def test_models_and_readiness(fake: Start) -> None:
    server = fake()
    with Client(server.url) as client:
        assert [card.role for card in client.models()] == ["embedder", "reranker"]
        assert client.ready()
        server.process.kill()
        server.process.wait()
        assert not client.ready()


def test_errors_name_the_callers_list(fake: Start) -> None:
    server = fake()
    with Client(server.url, policy=Policy(items=2)) as client:
        with pytest.raises(Unprocessable, match=r"input\[4\].text is bad") as caught:
            client.embed(["a", "b", "c", "d", "BAD"])
        assert (caught.value.param, caught.value.code) == ("input[4].text", "unprocessable")
        result = client.embed_result(["a", "b", "c", "BAD", "e"], on_error="skip")
    assert list(result.errors) == [3]
    assert isinstance(result.errors[3], Unprocessable)
    assert result.errors[3].param == "input[3].text"
    assert not result.vectors[3].any()
    assert result.vectors[[0, 1, 2, 4]].all(axis=1).any()


def test_the_async_client_raises_the_error_itself_and_stays_usable(fake: Start) -> None:
    server = fake(delay=0.01)

    async def run() -> tuple[int, ...]:
        async with AsyncClient(server.url, policy=Policy(items=1, concurrency=2)) as client:
            for _ in range(3):
                with pytest.raises(Unprocessable):
                    await client.embed(["a", "BAD", "c", "d", "e", "f"])
                with pytest.raises(FileNotFoundError):
                    await client.embed(["a", Path("/nowhere")])
            return (await client.embed(["a"] * 5)).shape

    assert asyncio.run(asyncio.wait_for(run(), 30)) == (5, 8)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            401,
            {"error": {"message": "no", "type": "t", "code": "invalid_api_key", "param": None}},
            Unauthorized,
        ),
        (
            413,
            {"error": {"message": "big", "type": "t", "code": "too_many_items", "param": "input"}},
            TooLarge,
        ),
        (418, "<html>teapot</html>", BadRequest),
        (500, "<html>oops</html>", QvlError),
        (504, {"unexpected": 1}, DeadlineExceeded),
    ],
)
def test_refusals_become_our_errors_at_once(
    fake: Start, status: int, body: Any, kind: type[QvlError]
) -> None:
    server = fake(refusals=[[status, {}, body]])
    with Client(server.url, policy=QUICK) as client, pytest.raises(QvlError) as caught:
        client.embed(["a"])
    assert type(caught.value) is kind
    if isinstance(body, dict) and "error" in body:
        assert (caught.value.code, caught.value.param) == (body["error"]["code"], body["error"]["param"])
    else:
        assert f"HTTP {status}" in caught.value.message
    assert len(server.log()) == 1


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_is_asked_again(fake: Start, status: int) -> None:
    server = fake(refusals=[[status, {"retry-after": "0"}, BODY]] * 3)
    with Client(server.url, policy=QUICK) as client:
        assert client.embed(["a"]).shape == (1, 8)
    assert len(server.log()) == 4


def test_patience_ends_with_the_last_error(fake: Start) -> None:
    server = fake(refusals=[[429, {"retry-after": "0.001"}, BODY]] * 9)
    policy = Policy(backoff=0.001, retries=2)
    with Client(server.url, policy=policy) as client, pytest.raises(Overloaded, match="later") as caught:
        client.embed(["a"])
    assert caught.value.retry_after == 0.001
    assert len(server.log()) == 3


def test_a_server_that_is_away_is_unavailable(fake: Start) -> None:
    server = fake()
    server.process.kill()
    server.process.wait()
    with (
        Client(server.url, policy=Policy(backoff=0.001, retries=2)) as client,
        pytest.raises(Unavailable, match="cannot reach the server"),
    ):
        client.embed(["a"])


def test_a_reply_that_makes_no_sense_is_an_error() -> None:
    for reply in (
        {"data": [], "model": "m"},
        {"data": 3},
        {"data": [{"index": 5, "embedding": ""}], "model": ""},
    ):
        transport = httpx.MockTransport(lambda _, reply=reply: httpx.Response(200, json=reply))
        with Client(transport=transport) as client, pytest.raises(Unavailable) as caught:
            client.embed(["a"])
        assert caught.value.code == "bad_reply"


# Weight


def test_importing_and_embedding_text_loads_nothing_heavy(fake: Start) -> None:
    server = fake()
    code = (
        "import sys; from qvl.engine.client import Client\n"
        f"Client({server.url!r}).embed(['a'])\n"
        "print(*{'torch','vllm','ray','transformers','PIL','starlette'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# The real server


@pytest.mark.engine
def test_the_real_server_answers_both_clients_alike(server: Any) -> None:
    items = ["a red square", picture((64, 48)), {"text": "both", "image": picture((40, 40))}]
    items.append({"video": [picture((64, 64))] * 3})

    async def run() -> Any:
        async with AsyncClient(server.url) as client:
            return await client.embed(items)

    with Client(server.url) as client:
        assert client.ready()
        assert {card.role for card in client.models()} == {"embedder", "reranker"}
        vectors = client.embed(items)
        short = client.embed(items, dimensions=16, instruction="Find the picture.")
        ranked = client.rerank("a red square", items)
        with pytest.raises(QvlError) as caught:
            client.embed(["fine", {"image": b"not a picture"}])
        skipped = client.embed_result(["fine", {"image": b"not a picture"}], on_error="skip")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, asyncio.run(run()), atol=1e-5)
    assert short.shape == (4, 16)
    assert sorted(each.index for each in ranked) == [0, 1, 2, 3]
    assert all(0 < each.score < 1 for each in ranked)
    assert list(skipped.errors) == [1]
    assert caught.value.param == skipped.errors[1].param == "input[1].image"
    assert skipped.usage.images == 0
    assert skipped.usage.text_tokens > 0
