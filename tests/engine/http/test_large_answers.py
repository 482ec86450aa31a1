"""An answer of many numbers is written beside the event loop, and is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qvl.engine import response
from qvl.engine.api import answering
from tests.engine.http.conftest import Client

BODY = {"texts": ["a", "b"], "embedding_types": ["float", "int8", "ubinary", "base64"]}


@pytest.mark.parametrize("inline", [0, 1 << 18])
def test_where_it_is_written(client: Client, monkeypatch: pytest.MonkeyPatch, inline: int) -> None:
    expected = client.post("/v2/embed", json=BODY).json()["embeddings"]
    beside = set()
    convert = response.convert

    def seen(*asked: Any) -> Any:
        beside.add(asyncio._get_running_loop() is None)
        return convert(*asked)

    monkeypatch.setattr(response, "convert", seen)
    monkeypatch.setattr(answering, "INLINE_NUMBERS", inline)
    assert client.post("/v2/embed", json=BODY).json()["embeddings"] == expected
    assert beside == {inline == 0}
