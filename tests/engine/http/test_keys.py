"""Keys with names and rates: what is counted for whom, what is refused, and what never shows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from qvl.engine.admission import CALLER
from qvl.engine.api.auth import OPEN_PATHS, Caller, Keys
from qvl.engine.api.openapi import ROUTES
from qvl.engine.errors import ConfigError, Overloaded
from qvl.engine.logs import JsonLines
from tests.engine.http.conftest import Client
from tests.engine.http.fake import FakeEngine

E = "/v1/embeddings"
GOOD = {"input": "a"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_file_with_names_and_rates(make: Callable[..., Client], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# key, then what it may\nplain\nsecret1 name=search rpm=2\nsecret2 rpm=2 name=search\n")
    client = make(api_key_file=str(file))
    assert [client.post(E, json=GOOD, headers=bearer("plain")).status_code for _ in range(4)] == [200] * 4
    found = [client.post(E, json=GOOD, headers=bearer(key)) for key in ("secret1", "secret2", "secret1")]
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert found[2].json()["error"]["code"] == "rate_limited"
    assert "API key 'search' is over its limit of 2 requests a minute" in found[2].text
    assert 1 <= int(found[2].headers["retry-after"]) <= 30
    text = client.get("/metrics", headers=bearer("plain")).text
    assert 'qvl_key_requests_total{key="search",status="429"} 1.0' in text
    assert 'qvl_key_requests_total{key="key-1",status="200"} 4.0' in text
    assert "secret" not in text


def test_a_file_that_an_editor_began_with_a_mark(make: Callable[..., Client], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\nsecond\n", encoding="utf-8-sig")
    client = make(api_key_file=str(file))
    assert [client.post(E, json=GOOD, headers=bearer(key)).status_code for key in ("first", "second")] == [
        200
    ] * 2


def test_strangers_make_no_series(make: Callable[..., Client]) -> None:
    client = make(api_key=("k",))
    for stranger in ("x", "y"):
        client.post(E, json=GOOD, headers=bearer(stranger))
    text = client.get("/metrics", headers=bearer("k")).text
    assert 'qvl_key_requests_total{key="-",status="401"} 2.0' in text


def test_health_is_not_counted_against_a_key(make: Callable[..., Client]) -> None:
    client = make(api_key=("k rpm=1",))
    answers = [client.get("/health/live", headers=bearer("k")).status_code for _ in range(5)]
    assert answers == [200] * 5


def test_a_part_of_a_request_is_not_counted_again(make: Callable[..., Client]) -> None:
    client = make(api_key=("k rpm=1",), seal=b"sealed")
    for value, wanted in (("sealed", 200), ("sealed", 200), ("1", 200), ("k", 429), ("sealed", 200)):
        headers = {**bearer("k"), "x-qvl-part": value}
        assert client.post(E, json=GOOD, headers=headers).status_code == wanted
    assert client.post(E, json=GOOD, headers={"x-qvl-part": "sealed"}).status_code == 401


@pytest.mark.parametrize("value", ["", "None", "k"])
def test_where_nothing_is_divided_no_request_is_a_part(make: Callable[..., Client], value: str) -> None:
    client = make(api_key=("k rpm=1",))
    headers = {**bearer("k"), "x-qvl-part": value}
    assert [client.post(E, json=GOOD, headers=headers).status_code for _ in range(2)] == [200, 429]


def test_the_engine_knows_whose_request_it_has(make: Callable[..., Client], engine: FakeEngine) -> None:
    seen: list[str] = []
    embed = engine.embed

    async def noting(request):  # type: ignore[no-untyped-def]
        seen.append(CALLER.get())
        return await embed(request)

    engine.embed = noting  # type: ignore[method-assign]
    client = make(api_key=("k1 name=one", "k2"))
    for key in ("k1", "k2", "k1"):
        assert client.post(E, json=GOOD, headers=bearer(key)).status_code == 200
    assert seen == ["one", "key-2", "one"]


def test_a_key_is_in_no_line_of_the_log(
    make: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in an answer: of a defect, of a refusal, of one by its rate, of another's key."""
    caplog.set_level(logging.DEBUG)
    client = make(api_key=("hidden-1 name=search rpm=3", "hidden-2 only=metrics"))
    asked = [("hidden-1", "a"), ("hidden-1", "!boom"), ("hidden-1", "!bad"), ("hidden-1", "a")]
    answers = [
        client.post(E, json={"input": text}, headers={header: f"{scheme}{key}"})
        for header, scheme in (("authorization", "Bearer "), ("x-api-key", ""), ("api-key", ""))
        for key, text in (*asked, ("hidden-2", "a"), ("hidden-of-another", "a"))
    ]
    assert {answer.status_code for answer in answers} == {200, 401, 403, 422, 429, 500}
    lines = [JsonLines(replica=0).format(each) for each in caplog.records]
    assert sum('"key":"search"' in line for line in lines) >= 3
    assert "hidden" not in "".join([caplog.text, *lines, *(answer.text for answer in answers)])


def test_a_rate_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("qvl.engine.api.auth.time.monotonic", lambda: now[0])
    caller = Caller("a", rpm=6)
    for _ in range(6):
        caller.count()
    with pytest.raises(Overloaded) as caught:
        caller.count()
    assert caught.value.retry_after == pytest.approx(10)
    now[0] += 10
    caller.count()
    now[0] += 3600
    for _ in range(6):
        caller.count()
    with pytest.raises(Overloaded):
        caller.count()


@pytest.mark.parametrize(
    "entry",
    [
        *("k name=", "k name=a/b", "k rpm=0", "k rpm=-1", "k rpm=x", "k limit=3", "k word", "k rpm=1 rpm=2"),
        *("name=secret", "rpm=600", "name=a rpm=6", "only=metrics", "k only=", "k only=health"),
    ],
)
def test_bad_entries_do_not_show_the_key(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keys([entry.replace("k ", "secret ")])
    assert "secret" not in str(caught.value)


def test_keys_of_one_name_have_one_rate() -> None:
    for entries in (["a name=x rpm=1", "b name=x rpm=2"], ["a name=x", "b name=x only=metrics"]):
        with pytest.raises(ConfigError, match="different rpm or only"):
            Keys(entries)


METRICS = "m name=prometheus only=metrics"


def test_a_key_for_metrics_opens_nothing_else(make: Callable[..., Client], engine: FakeEngine) -> None:
    client = make(api_key=("k", METRICS))
    assert client.get("/metrics", headers=bearer("m")).status_code == 200
    for path in ("/health", "/health/live", "/health/ready", "/ping"):
        assert client.get(path, headers=bearer("m")).status_code == 200
    paths = ROUTES - OPEN_PATHS - {"/metrics"} | {"/nowhere", "/v1/models/a", "/metrics/more"}
    for path in paths:
        for answer in (
            client.get(path, headers=bearer("m")),
            client.post(path, json=GOOD, headers=bearer("m")),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_for_this_key"), path
            assert "only=metrics" in answer.json()["error"]["message"]
    assert not engine.requests
    for path in ("/metrics", "/v1/models"):
        assert client.get(path, headers=bearer("k")).status_code == 200
    text = client.get("/metrics", headers=bearer("m")).text
    assert f'qvl_key_requests_total{{key="prometheus",status="403"}} {2.0 * len(paths)}' in text


def test_keys_for_metrics_alone_would_close_the_server() -> None:
    with pytest.raises(ConfigError, match="nobody could ask"):
        Keys([METRICS])
