"""Getting through: when the client tries again, on a clock of its own, and which way it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from qvl.engine.client import Client, wire
from qvl.engine.client.clients import address
from qvl.engine.client.retry import BY_STATUS, Attempts, Policy, error_of, retry_after
from qvl.engine.client.wire import AFFINITY
from qvl.engine.errors import BadRequest, DeadlineExceeded, Overloaded, Unavailable


def attempts(**policy: Any) -> tuple[Attempts, list[float]]:
    now = [0.0]
    return Attempts(Policy(**policy), clock=lambda: now[0], jitter=lambda: 1.0), now


def test_waits_double_and_the_server_may_ask_for_more() -> None:
    tries, _ = attempts(backoff=0.5, longest_wait=3, retries=9)
    busy = httpx.Response(503)
    assert [tries.after(busy) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert tries.after(httpx.Response(429, headers={"retry-after": "17"})) == 17
    assert tries.after(httpx.Response(200)) is None


def test_no_wait_reaches_beyond_the_deadline() -> None:
    tries, now = attempts(deadline=10, connect=5)
    assert tries.timeout() == httpx.Timeout(10, connect=5)
    now[0] = 8.0
    assert tries.timeout() == httpx.Timeout(2, connect=2)
    with pytest.raises(Overloaded):
        tries.after(httpx.Response(429, headers={"retry-after": "3"}))


def test_an_answer_that_takes_too_long_is_not_asked_for_again() -> None:
    tries, _ = attempts()
    with pytest.raises(DeadlineExceeded):
        tries.after(httpx.ReadTimeout("slow"))


def test_a_server_that_cannot_be_reached_is_told_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    tries, _ = attempts(retries=2)
    for _ in range(2):
        tries.after(httpx.ConnectError("Connection refused"))
    assert caplog.messages == [
        "cannot reach the server: Connection refused; trying again, up to 2 more",
    ]
    with pytest.raises(Unavailable, match="cannot reach the server: Connection refused"):
        tries.after(httpx.ConnectError("Connection refused"))
    attempts()[0].after(httpx.Response(503))
    attempts()[0].after(httpx.ReadError("reset"))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3), ("0.5", 0.5), ("-1", 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_read_as_number_or_date(value: str, seconds: float) -> None:
    assert retry_after(httpx.Response(429, headers={"retry-after": value})) == seconds


@pytest.mark.parametrize("status", BY_STATUS)
def test_every_status_becomes_its_error(status: int) -> None:
    body = {"error": {"message": "why", "code": "c", "param": "input[3]"}}
    error = error_of(httpx.Response(status, json=body))
    assert (type(error), error.message, error.code, error.param) == (
        BY_STATUS[status],
        "why",
        "c",
        "input[3]",
    )
    assert error_of(httpx.Response(status)).code == BY_STATUS[status].code


def test_what_requests_share_is_named_until_one_fails() -> None:
    """Whichever replica the name leads to may be the full one."""
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get(AFFINITY))
        count = len(orjson.loads(request.content)["documents"])
        scores = [{"index": place, "relevance_score": 0.5} for place in range(count)]
        return httpx.Response(503 if len(seen) == 1 else 200, json={"results": scores})

    policy = Policy(documents=2, backoff=0)
    with Client(policy=policy, transport=httpx.MockTransport(answer)) as client:
        client.rerank("a query", ["a", "b", "c"])
        client.rerank("a query", ["others"])
        client.rerank("another", ["others"])
    failed, again, second, same, other = seen
    assert again is None
    assert failed == same
    assert len({failed, second, other, None}) == 4


def test_one_item_is_named_a_list_is_not() -> None:
    parts = [*wire.embed_parts(["a"], {}, Policy()), *wire.embed_parts(["a", "b"], {}, Policy())]
    assert [bool(part.headers(0)) for part in parts] == [True, False]


def test_a_proxy_is_not_asked_for_this_machine(
    fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    with Client(fake().url) as client:
        assert client.embed(["a"]).shape == (1, 8)


@pytest.mark.parametrize("written", ["{}", "{}/", "{}/v1", "{}/v1/", "bare"])
def test_a_server_is_found_as_users_write_it(fake: Callable[..., Any], written: str) -> None:
    url = fake().url
    with Client(written.format(url) if written != "bare" else url.removeprefix("http://")) as client:
        assert client.embed(["a"]).shape == (1, 8)


def test_a_prefix_of_a_gateway_stays() -> None:
    assert str(address("https://example.com/models/v1")) == "https://example.com/models"


@pytest.mark.parametrize("url", ["http://a:b", "ftp://example.com", "http://"])
def test_a_url_that_is_none_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(BadRequest), Client(url) as client:
        client.embed(["a"])
