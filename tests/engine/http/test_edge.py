"""Keys, ids, limits, deadlines, hang-ups, defects: what surrounds every request."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from qvl.engine.api import create_app
from qvl.engine.config import Limits
from qvl.engine.errors import ConfigError
from qvl.engine.logs import JsonLines
from qvl.engine.protocol import Health
from tests import web
from tests.engine.http.conftest import Client, on_a_port, settings
from tests.engine.http.fake import FakeEngine
from tests.replicas import until

E = "/v1/embeddings"
GOOD = {"input": "a"}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestKeys:
    @pytest.fixture
    def keyed(self, make: Callable[..., Client], tmp_path: Path) -> Client:
        file = tmp_path / "keys"
        file.write_text("# ours\n\nfrom-file\n")
        return make(api_key=("first", "second"), api_key_file=str(file))

    @pytest.mark.parametrize("key", ["first", "second", "from-file"])
    def test_each_key_opens(self, keyed: Client, key: str) -> None:
        assert keyed.post(E, json=GOOD, headers={"authorization": f"Bearer {key}"}).status_code == 200
        for header in ("x-api-key", "api-key"):
            assert keyed.post(E, json=GOOD, headers={header: key}).status_code == 200
            assert code(keyed.post(E, json=GOOD, headers={header: "x"})) == (401, "invalid_api_key")

    @pytest.mark.parametrize("value", ["Bearer wrong", "Bearer firs", "Bearer first ", "Bearer # ours"])
    def test_a_wrong_key_does_not(self, keyed: Client, value: str) -> None:
        answer = keyed.post(E, json=GOOD, headers={"authorization": value})
        if value.strip().endswith("first"):
            assert answer.status_code == 200
        else:
            assert code(answer) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("value", [None, "first", "Basic first", "Bearer", "Bearer "])
    def test_no_key(self, keyed: Client, value: str | None) -> None:
        headers = {} if value is None else {"authorization": value}
        assert code(keyed.post(E, json=GOOD, headers=headers)) == (401, "missing_api_key")

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/models",
            "/v1/models/a",
            "/info",
            "/version",
            "/metrics",
            "/openapi.json",
            "/docs",
            "/nowhere",
            "/",
        ],
    )
    def test_everything_else_is_closed(self, keyed: Client, path: str) -> None:
        assert keyed.get(path).status_code == 401

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/ping"])
    def test_health_is_open(self, keyed: Client, path: str) -> None:
        assert keyed.get(path).status_code == 200

    def test_bad_settings(self, engine: FakeEngine, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read --api-key-file"):
            create_app(engine, settings(api_key_file=str(tmp_path / "none")))
        (tmp_path / "empty").write_text("# nothing\n")
        with pytest.raises(ConfigError, match="has no key"):
            create_app(engine, settings(api_key_file=str(tmp_path / "empty")))
        with pytest.raises(ConfigError, match="empty"):
            create_app(engine, settings(api_key=(" ",)))


class TestIds:
    def test_echoed(self, client: Client) -> None:
        assert client.post(E, json=GOOD, headers={"x-request-id": "a-1"}).headers["x-request-id"] == "a-1"

    @pytest.mark.parametrize("value", ["", "x" * 129, "a b", "a\tb", "é"])
    def test_odd_ones_are_replaced(self, client: Client, value: str) -> None:
        headers = [(b"x-request-id", value.encode())]
        assert len(client.get("/health/live", headers=headers).headers["x-request-id"]) == 32

    def test_errors_have_one(self, client: Client) -> None:
        assert client.get("/nowhere").headers["x-request-id"]


def test_body_limit_of_an_announced_and_of_a_streamed_body(engine: FakeEngine) -> None:
    with on_a_port(engine, limits=Limits(body_bytes=1000)) as url:
        large = b'{"input": "' + b"a" * 1000 + b'"}'
        plain = {"content-type": "application/json"}
        assert code(web.post(url + E, content=large, headers=plain)) == (413, "body_too_large")
        told = web.post(url + E, content=large, headers=plain).json()["detail"]
        assert "by URL: one may have 50331648 bytes (--media-bytes)" in told
        stream = (large[i : i + 100] for i in range(0, len(large), 100))
        assert code(web.post(url + E, content=stream, headers=plain)) == (413, "body_too_large")
        assert web.post(url + E, json=GOOD).status_code == 200


def test_bodies_of_all_requests_together_are_bounded(engine: FakeEngine) -> None:
    with on_a_port(engine, limits=Limits(bodies_bytes=1000)) as url, connect(url) as slow:
        slow.sendall(head(900) + b'{"input": "' + b" " * 800)
        until(lambda: "qvl_bodies_bytes 811.0" in web.get(f"{url}/metrics").text)
        assert "qvl_bodies_limit_bytes 1000.0" in web.get(f"{url}/metrics").text
        until(lambda: web.post(url + E, json={"input": "a" * 300}).status_code == 429)
        refused = web.post(url + E, json={"input": "a" * 300})
        assert (code(refused), refused.headers["retry-after"]) == ((429, "bodies_full"), "1")
        assert web.post(url + E, json=GOOD).status_code == 200
        slow.close()
        until(lambda: "qvl_bodies_bytes 0.0" in web.get(f"{url}/metrics").text)
        assert web.post(url + E, json={"input": "a" * 300}).status_code == 200


def test_limits_on_items_and_documents(make: Callable[..., Client]) -> None:
    client = make(limits=Limits(items=2, documents=3))
    assert client.post(E, json={"input": ["a"] * 2}).status_code == 200
    assert code(client.post(E, json={"input": ["a"] * 3})) == (413, "too_many_items")
    pairs = {"queries": ["a"] * 4, "documents": ["b"] * 4}
    assert code(client.post("/score", json=pairs)) == (413, "too_many_documents")


def test_retry_after(client: Client, engine: FakeEngine) -> None:
    busy = client.post(E, json={"input": "!busy"})
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")
    engine.ready = Health(ready=False, reason="starting")
    ready = client.get("/health/ready")
    assert code(ready) == (503, "starting")
    assert ready.headers["retry-after"] == "5"


def test_a_defect_is_a_500_that_tells_nothing(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = client.post(E, json={"input": "!boom"}, headers={"x-request-id": "find-me"})
    assert code(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "find-me" in answer.text
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert "find-me" in logged.getMessage()


def test_deadline(make: Callable[..., Client], engine: FakeEngine) -> None:
    assert code(make(request_seconds=0.1).post(E, json={"input": "!slow"})) == (504, "deadline_exceeded")
    assert engine.cancelled == 1


def test_a_slow_upload_meets_the_deadline(engine: FakeEngine) -> None:
    with on_a_port(engine, request_seconds=0.2) as url, connect(url) as sock:
        sock.sendall(head(100) + b'{"input"')
        assert b" 504 " in sock.recv(1000)


def test_hanging_up_cancels_the_work(live: str, engine: FakeEngine) -> None:
    body = b'{"input": "!slow"}'
    with connect(live) as sock:
        sock.sendall(head(len(body)) + body)
        until(lambda: bool(engine.requests))
    until(lambda: engine.cancelled == 1)
    until(lambda: 'status="499"' in web.get(f"{live}/metrics").text)


def test_hanging_up_while_sending(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(head(100) + b'{"input"')
        time.sleep(0.1)
    until(lambda: 'code="client_closed"' in web.get(f"{live}/metrics").text)


def test_two_content_types(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(head(2, "content-type: application/json", "content-type: text/plain") + b"{}")
        assert b" 415 " in sock.recv(1000)


def test_no_content_type_is_taken_for_json(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(head(14) + b'{"input": "a"}')
        assert b" 200 " in sock.recv(1000)


@pytest.mark.parametrize(
    "value",
    ["application/json; charset=utf-8", 'application/json; charset="UTF-8"', "application/vnd.api+json"],
)
def test_spellings_of_json(client: Client, value: str) -> None:
    answer = client.post(E, content=b'{"input": "a"}', headers={"content-type": value})
    assert answer.status_code == 200


def test_other_methods(client: Client) -> None:
    answer = client.get(E)
    assert code(answer) == (405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


def test_logs_hold_no_content(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qvl.http")
    client.post(E, json={"input": "private words", "private_field": 1})
    client.post(E, json={"input": "private words"})
    assert len([record for record in caplog.records if record.name == "qvl.http"]) == 2
    assert "private" not in caplog.text


def test_json_logs_hold_ids_and_no_content(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "qvl.http")
    for text in ("private words", "!boom"):
        client.post(E, json={"input": text}, headers={"x-request-id": f"id-of-{text[-4:]}"})
    lines = [json.loads(JsonLines(replica=3).format(each)) for each in caplog.records]
    assert [(each["id"], each["route"], each["replica"]) for each in lines] == [
        ("id-of-ords", E, 3), ("id-of-boom", E, 3), ("id-of-boom", E, 3),
    ]  # fmt: skip
    answered, failed, told = lines
    assert (answered["level"], answered["status"], answered["code"]) == ("debug", 200, "-")
    assert "RuntimeError" in failed["traceback"]
    assert (told["level"], told["status"], told["logger"]) == ("error", 500, "qvl.http")
    assert all(datetime.fromisoformat(each["time"]).tzinfo for each in lines)
    assert "private" not in str(lines)


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head(length: int, *lines: str) -> bytes:
    fields = [f"POST {E} HTTP/1.1", "host: x", f"content-length: {length}", *lines]
    return ("\r\n".join(fields) + "\r\n\r\n").encode()
