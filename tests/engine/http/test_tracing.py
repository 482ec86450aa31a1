"""Traces: one span a request, below it its stages, below the caller's own; none unless asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qvl.engine import tracing
from qvl.engine.errors import ConfigError
from qvl.engine.tracing import Tracer
from tests.engine.http.conftest import Client
from tests.engine.http.fake import FakeEngine

E = "/v1/embeddings"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def spans(engine: FakeEngine, client: Client) -> Callable[[], dict]:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracer = engine.metrics.tracer = Tracer(exporter)

    def finished() -> dict:
        tracer.flush()
        return {span.name: span for span in exporter.get_finished_spans()}

    return finished


def test_stages_lie_below_the_request_and_that_below_the_caller(client: Client, spans: Callable) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
    assert client.post(E, json={"input": "private words"}, headers=headers).status_code == 200
    found = spans()
    assert set(found) == {E, "parse", "render"}
    request = found[E]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["qvl.request_id"] == "mine"
    for stage in ("parse", "render"):
        assert found[stage].parent.span_id == request.context.span_id
    assert "private" not in str([span.to_json() for span in found.values()])


@pytest.mark.parametrize("parent", ["", "nonsense", "00-0-0-00", "é"])
def test_an_odd_parent_is_none(client: Client, spans: Callable, parent: str) -> None:
    headers = [(b"traceparent", parent.encode())]
    assert client.post(E, json={"input": "a"}, headers=headers).status_code == 200
    assert spans()[E].parent is None


def test_a_failed_request_has_its_status(client: Client, spans: Callable) -> None:
    assert client.post(E, json={"input": "!bad"}).status_code == 422
    assert spans()[E].attributes["http.response.status_code"] == 422


def test_off_unless_asked_for(engine: FakeEngine, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.metrics.tracer is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert isinstance(tracing.tracer(None), Tracer)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(ConfigError, match=r"qvl\[trace\]"):
        tracing.tracer("http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert tracing.tracer(None) is None
