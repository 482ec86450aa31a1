"""Every bad request gets its documented answer, and the server goes on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import FrameType
from typing import Any

import httpx
import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.dialects.fields import Body
from qvl.engine.errors import QvlError
from qvl.engine.media import MediaLoader
from qvl.engine.media.decoders import ForkServer
from tests import web
from tests.conftest import Server
from tests.engine.http import bad_foreign, bad_requests
from tests.engine.http.bad_requests import Bad, jpeg, url
from tests.engine.http.conftest import Client, on_a_port
from tests.engine.http.fake import FakeEngine

SHAPES = (*bad_requests.SHAPES, *bad_foreign.SHAPES)
ALL = (*SHAPES, *bad_requests.MEDIA, *bad_foreign.MEDIA)


def check(bad: Bad, answer: httpx.Response) -> None:
    error = told(answer)
    assert (answer.status_code, error["code"]) == (bad.status, bad.code), error
    if bad.param is not None:
        assert error["param"] == bad.param, error


def told(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error", "detail", "code", "message"]
    assert body["detail"] == body["message"] == body["error"]["message"]
    assert body["code"] == body["error"]["code"]
    assert list(body["error"]) == ["message", "type", "code", "param"]
    assert len(body["error"]["message"]) < 1000
    return body["error"]


def send(url: str, bad: Bad) -> httpx.Response:
    headers = {"content-type": "application/json", **bad.headers}
    return web.post(url + bad.route, content=bad.content(), headers=headers, timeout=60)


def test_there_are_more_than_fifty_and_no_two_have_one_name() -> None:
    assert len({bad.name for bad in ALL}) == len(ALL) > 50


@pytest.mark.parametrize("bad", SHAPES, ids=lambda bad: bad.name)
def test_shape(client: Client, bad: Bad) -> None:
    headers = {"content-type": "application/json", **bad.headers}
    check(bad, client.post(bad.route, content=bad.content(), headers=headers))
    assert client.post("/v1/embeddings", json={"input": "good"}).status_code == 200


@pytest.fixture(scope="module")
def reading(forks: ForkServer) -> Iterator[str]:
    """The media room behind the app, on a real port."""
    loader = MediaLoader(MediaConfig(workers=2), Limits(), forks=forks)
    with on_a_port(FakeEngine(loader)) as url:
        yield url
    asyncio.run(loader.close())


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: bad.name)
def test_on_a_port_with_media(reading: str, bad: Bad) -> None:
    check(bad, send(reading, bad))


def test_none_of_them_waits_for_the_garbage_collector(reading: str) -> None:
    """Or what it brought would be in memory until then, and the server lets the collector rest."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for bad in ALL:
            send(reading, bad)
        gc.collect()
        kept = {type(each).__name__ for each in gc.garbage if isinstance(each, FrameType | QvlError | Body)}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kept


def test_good_requests_follow(reading: str) -> None:
    good = {"input": ["good", {"image": url("image/jpeg", jpeg())}]}
    assert web.post(f"{reading}/v1/embeddings", json=good).status_code == 200


@pytest.mark.engine
def test_all_against_the_engine(server: Server) -> None:
    for bad in ALL:
        try:
            check(bad, send(server.url, bad))
        except AssertionError as error:
            error.add_note(bad.name)
            raise
    answer = web.post(f"{server.url}/v1/embeddings", json={"input": "good"}, timeout=60)
    assert answer.status_code == 200
