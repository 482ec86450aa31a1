"""Models, metrics, the schema and the page about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from qvl.engine.api.information import READY_PATHS, routes
from qvl.engine.api.operations import OPERATIONS
from qvl.engine.config import Limits
from qvl.engine.protocol import Health
from tests.engine.http.conftest import Client
from tests.engine.http.fake import EMBEDDER, RERANKER, WIDTH, FakeEngine


def test_models(client: Client) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    assert [(each["id"], each["role"], each["object"]) for each in body["data"]] == [
        (EMBEDDER, "embedder", "model"),
        (RERANKER, "reranker", "model"),
    ]
    assert body["data"][0]["dimensions"] == WIDTH
    assert [each["id"] for each in client.get("/models").json()["data"]] == [EMBEDDER, RERANKER]


def test_a_model_of_the_hub_says_its_commit(
    client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder, reranker = FakeEngine().models()
    monkeypatch.setattr(engine, "models", lambda: [replace(embedder, revision="c0" * 20), reranker])
    body = client.get("/v1/models").json()
    assert [each.get("revision") for each in body["data"]] == ["c0" * 20, None]
    assert "revision" not in body["data"][1]


def test_one_model(client: Client) -> None:
    for listed in client.get("/v1/models").json()["data"]:
        assert client.get(f"/v1/models/{listed['id']}").json() == listed
    answer = client.get("/v1/models/Qwen/another")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    metrics = client.get("/metrics").text
    assert 'route="/v1/models/{id}",status="404"} 1.0' in metrics
    assert "another" not in metrics


def test_one_model_by_what_the_command_line_called_it(client: Client) -> None:
    """As the hub does, or one name of both, of which the first is meant."""
    first, second = client.get("/v1/models").json()["data"]
    called = {"org/tiny-embedder": first, "org/tiny-reranker": second, "pair": first}
    for name, card in called.items():
        assert client.get(f"/v1/models/{name}").json() == {**card, "id": name}
        answer = client.get(f"/v1/models/{name}:query")
        assert answer.status_code == (200 if card is first else 404)


def test_what_clients_read_of_a_model(client: Client) -> None:
    """Xinference's `restful_client.py`, Dify's `xinference_helper.py`, MTEB's OpenAI models."""
    for name, kind in ((EMBEDDER, "embedding"), (RERANKER, "rerank")):
        found = client.get(f"/v1/models/{name}").json()
        assert (found["model_type"], found["model_name"]) == (kind, name)
        assert found["max_tokens"] == found["max_model_len"] == found["max_length"]


def test_the_words_of_vllm_and_tei(client: Client) -> None:
    assert client.get("/version").json() == {"version": version("qvl")}
    info = client.get("/info").json()
    assert (info["model_id"], info["max_input_length"], info["version"]) == (EMBEDDER, 8192, version("qvl"))
    assert "embedding" in info["model_type"]


def test_a_server_of_the_reranker_alone_says_so(
    client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dify's TEI plug-in takes no server for a reranker that says anything else."""
    monkeypatch.setattr(engine, "models", lambda: FakeEngine().models()[1:])
    info = client.get("/info").json()
    assert (info["model_id"], list(info["model_type"])) == (RERANKER, ["reranker"])
    assert (info["max_input_length"], info["max_client_batch_size"]) == (10240, Limits().documents)


def test_health(client: Client, engine: FakeEngine) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    for path in READY_PATHS:
        assert client.get(path).json() == {"status": "ready"}
    engine.ready = Health(ready=False, reason="the engine of x has died")
    for path in READY_PATHS:
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
    assert client.get("/health/live").status_code == 200


def test_metrics(client: Client) -> None:
    client.post("/v1/embeddings", json={"input": ["a", "b"]})
    client.post("/v1/embeddings", json={"inputs": "a"})
    client.get("/a-strangers-path")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.text
    for line in (
        'qvl_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'qvl_requests_total{route="/v1/embeddings",status="400"} 1.0',
        'qvl_requests_total{route="other",status="404"} 1.0',
        'qvl_errors_total{code="unknown_field",route="/v1/embeddings",status="400"} 1.0',
        'qvl_request_seconds_count{route="/v1/embeddings"} 2.0',
        'qvl_stage_seconds_count{stage="parse"} 2.0',
        'qvl_stage_seconds_count{stage="render"} 1.0',
        "qvl_requests_in_flight 1.0",
        "process_resident_memory_bytes",
    ):
        assert line in text, line
    assert "stranger" not in text


def test_the_schema_is_what_the_decoder_enforces(make: Callable[..., Client], tmp_path: Path) -> None:
    client = make(index=str(tmp_path / "index"))
    schema = client.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    for operation in OPERATIONS:
        for path in operation.paths:
            post = schema["paths"][path]["post"]
            media = post["requestBody"]["content"]["application/json"]
            name = media["schema"]["$ref"].rpartition("/")[2]
            body = schema["components"]["schemas"][name]
            assert body["additionalProperties"] == {"type": "null"}
            assert set(body["properties"]) == {
                each.encode_name for each in msgspec.structs.fields(operation.body)
            }
            assert client.post(path, json=media["example"]).status_code == 200


def test_every_get_route_is_in_the_schema(client: Client, engine: FakeEngine) -> None:
    served = {route.path for route in routes(engine, Limits(), keyed=False)}
    documented = {path for path, each in client.get("/openapi.json").json()["paths"].items() if "get" in each}
    assert {path.replace("{id:path}", "{id}") for path in served} == documented


def test_every_reference_of_the_schema_resolves(client: Client) -> None:
    answer = client.get("/openapi.json")
    names = answer.json()["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/([^\"]+)", answer.text)) == set(names)


def test_the_page_needs_no_network(client: Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for operation in OPERATIONS:
        assert all(path in answer.text for path in operation.paths)
    assert not re.findall(r"<(?:script|link|img|iframe)|@import|url\(", answer.text)


def test_keys_are_in_the_schema(make: object) -> None:
    keyed = make(api_key=("k",))  # type: ignore[operator]
    schema = keyed.get("/openapi.json", headers={"authorization": "Bearer k"}).json()
    assert schema["security"] == [{"key": []}]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/v1/models"])
def test_trailing_slashes_are_the_same_route(client: Client, path: str) -> None:
    assert client.get(path + "/").status_code == 200
