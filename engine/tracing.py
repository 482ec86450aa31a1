"""OpenTelemetry traces, when they are asked for: a span for each request, below it one for each stage.

No span holds what was asked or answered: names, sizes and statuses only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import TYPE_CHECKING

from qvl.engine.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_EXPORT_SECONDS = 2
"""A collector that is away must not hold up the exit."""
_log = logging.getLogger("qvl.tracing")


class Tracer:
    """Sends spans to an exporter, from a thread of the library's own."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "qvl", "service.version": version("qvl")})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("qvl")
        self._propagator = TraceContextTextMapPropagator()

    def request(
        self, route: str, request_id: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> AbstractContextManager[Span]:
        """The server's span; the caller's, if its headers name one, is the parent."""
        from opentelemetry.trace import SpanKind

        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in headers
            if name in (b"traceparent", b"tracestate")
        }
        return self._tracer.start_as_current_span(
            route,
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {"http.route": route, "qvl.request_id": request_id},
            record_exception=False,
        )

    def stage(self, name: str) -> AbstractContextManager[Span]:
        return self._tracer.start_as_current_span(name, record_exception=False)

    def flush(self) -> None:
        self._provider.force_flush()


def tracer(endpoint: str | None) -> Tracer | None:
    """For an OTLP/HTTP collector; None: the one that OpenTelemetry's own variable names, if any."""
    wanted = endpoint or os.environ.get(_ENDPOINT)
    if not wanted:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        if endpoint:
            raise ConfigError("traces need OpenTelemetry: pip install 'qvl[trace]'") from None
        _log.warning("%s is set, but OpenTelemetry is not installed: no traces", _ENDPOINT)
        return None
    return Tracer(OTLPSpanExporter(f"{wanted.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS))
