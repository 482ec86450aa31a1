"""What the log has of a request: who was refused finds it by its id, and nobody can fill it."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from qvl.engine.api.call import MOST_LINES, Call, Lines, ours
from qvl.engine.errors import NotFound, Unavailable
from qvl.engine.logs import FIELDS
from qvl.engine.protocol import Health
from tests.engine.http.conftest import Client
from tests.engine.http.fake import FakeEngine

E = "/v1/embeddings"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "qvl.http")
    return caplog


def test_a_refusal_is_found_by_its_id(client: Client, told: pytest.LogCaptureFixture) -> None:
    client.post(E, json={"input": ["a", "!bad"]}, headers={"x-request-id": "mine"})
    client.get("/nowhere")
    client.get(E)
    said = [getattr(each, FIELDS) for each in told.records]
    assert [(each["status"], each["code"], each["param"], each["route"]) for each in said] == [
        (422, "undecodable", "input[1].image", E),
        (404, "route_not_found", "-", "other"),
        (405, "method_not_allowed", "-", E),
    ]
    assert {each.levelname for each in told.records} == {"INFO"}
    assert "request id=mine key=- route=/v1/embeddings status=422 code=undecodable" in told.text


def test_what_a_server_that_stops_refuses_has_a_line(
    client: Client, engine: FakeEngine, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise Unavailable("no", code="draining")

    monkeypatch.setattr(engine, "embed", refuse)
    assert client.post(E, json={"input": "a"}).status_code == 503
    [line] = told.records
    assert (line.levelname, getattr(line, FIELDS)["code"]) == ("INFO", "draining")


def test_successes_probes_and_those_who_come_again_have_none(
    client: Client, engine: FakeEngine, told: pytest.LogCaptureFixture
) -> None:
    assert client.post(E, json={"input": "a"}).status_code == 200
    assert client.post(E, json={"input": "!busy"}).status_code == 429
    engine.ready = Health(ready=False, reason="starting")
    for path in ("/health", "/health/ready", "/ping"):
        assert client.get(path).status_code == 503
    assert not told.records


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (E, {"input": "a", "private_field": 1}, "-"),
        (E, {"input": [{"text": "a", "private_field": 1}]}, "input[0]"),
        (E, {"input": [{"text": "a", "text private": 1}]}, "input[0].text"),
        (E, {"input": [{"text": 1}]}, "input[0].text"),
        ("/v1/rerank", {"query": "a", "documents": [{"private_field": 1}], "rank_fields": ["private_field"]},
         "documents[0]"),
    ],
)  # fmt: skip
def test_a_name_that_the_caller_made_is_not_in_it(
    client: Client, told: pytest.LogCaptureFixture, path: str, body: dict[str, object], param: str
) -> None:
    assert client.post(path, json=body).status_code == 400
    [line] = told.records
    assert getattr(line, FIELDS)["param"] == param
    assert "private" not in told.text


@pytest.mark.parametrize(
    ("param", "said"),
    [
        *((each, each) for each in ("input[3].image", "messages[0].content[12].image_url", "model")),
        ("filter.private.gte", "filter"),
        ("input[0].text[4111111111111111]", "input[0].text"),
        ("private", "-"),
        ("", "-"),
    ],
)
def test_names_of_ours_are_whole(param: str, said: str) -> None:
    assert ours(param) == said


def test_a_flood_has_so_many_lines_and_one_of_the_others(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, flood = 0.2, 10 * MOST_LINES
    monkeypatch.setattr("qvl.engine.api.call._SECOND", second)

    def lines() -> tuple[int, int]:
        """Of requests, and how many the others stand for."""
        said = [each.getMessage() for each in told.records]
        more = [int(each.split()[0]) for each in said if "more requests were refused" in each]
        return len(said) - len(more), sum(more)

    async def strangers() -> float:
        known, begun = Lines(), time.monotonic()
        for _ in range(flood):
            known.tell(Call("other", "x", error=NotFound("no")), 404, 0.0)
        seconds = time.monotonic() - begun
        while sum(lines()) < flood:  # noqa: ASYNC110 - it is the log that is waited for
            await asyncio.sleep(0.01)
        await asyncio.sleep(second)  # so that the last one has a line of its own
        known.tell(Call("other", "x", error=NotFound("no")), 404, 0.0)
        return seconds

    seconds = asyncio.run(strangers())
    alone, others = lines()
    assert alone + others == flood + 1
    assert MOST_LINES < alone <= MOST_LINES * (2 + seconds / second)
