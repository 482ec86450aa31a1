"""Every metric, declared once. `Metrics` owns its registry, so two engines in one process do not mix.

Replicas behind one port write theirs to files of a folder they share (prometheus_client's multiprocess mode,
which the environment variable FOLDER turns on before the library is imported), and each answers for all. A
file has its replica's number, not its process's: one that is started again goes on in those of the one before
it, so that counters never fall and nothing is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from qvl.engine import machine
from qvl.engine.protocol import Usage
from qvl.engine.tracing import Tracer

Stage: TypeAlias = Literal["parse", "media", "tokenize", "engine", "recall", "render"]
Bounded: TypeAlias = Literal["tokens", "bodies"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_LABELS = {"qvl": "version"}
"""Of qvl_build_info; the others are called as their packages."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *_SECONDS)


class Metrics:
    """Recorded by the stages themselves; read at `/metrics`."""

    def __init__(self, shared: Path | None = None, number: int = 0, replicas: int | None = None) -> None:
        """`shared` is the folder of all replicas, of which this is `number`; None: there is one. `replicas`:
        how many there should be at this port; None: others count them."""
        self.tracer: Tracer | None = None
        own = CollectorRegistry(auto_describe=True)
        self.registry = own if shared is None else CollectorRegistry()
        if shared is None:
            ProcessCollector(registry=own)
        else:
            values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
            MultiProcessCollector(self.registry, str(shared))  # type: ignore[no-untyped-call]  # prometheus_client declares none
        gauge = partial(Gauge, registry=own, multiprocess_mode="livesum")
        # Of any that lives: what is asked for does not become less with each that has died.
        same = partial(Gauge, registry=own, multiprocess_mode="livemax")
        built = machine.versions()
        about = same(
            "qvl_build_info", "1; its labels are the versions.", [_LABELS.get(each, each) for each in built]
        )
        about.labels(*built.values()).set(1)
        if replicas is not None:
            same("qvl_replicas", "Replicas that were asked for (replicas).").set(replicas)
        self._ready = gauge("qvl_ready_replicas", "Replicas that take requests.")
        self._requests = Counter(
            "qvl_requests", "Requests answered, by route and HTTP status.", ("route", "status"), registry=own
        )
        self._latency = Histogram(
            "qvl_request_seconds",
            "Seconds from the request's first byte to its answer's last, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=own,
        )
        self._by_key = Counter(
            "qvl_key_requests",
            "Requests answered, by the name of their API key (`-`: none) and HTTP status.",
            ("key", "status"),
            registry=own,
        )
        self._key_tokens = Counter(
            "qvl_key_tokens", "Tokens of what each API key was answered.", ("key",), registry=own
        )
        self._key_media = Counter(
            "qvl_key_media", "Images and videos of what each API key was answered.", ("key",), registry=own
        )
        self._in_flight = gauge("qvl_requests_in_flight", "Requests being answered now.")
        self._held = {
            "tokens": (
                gauge("qvl_tokens_in_progress", "Estimated tokens of the requests in progress."),
                gauge("qvl_tokens_in_progress_limit", "Above which requests are refused (queue_tokens)."),
            ),
            "bodies": (
                gauge("qvl_bodies_bytes", "Bytes of request bodies in memory."),
                gauge("qvl_bodies_limit_bytes", "Above which requests are refused (bodies_bytes)."),
            ),
        }
        self._queued = gauge("qvl_queued_items", "Items handed to the model and not answered yet.", ("role",))
        self._stages = Histogram(
            "qvl_stage_seconds",
            "Seconds of one stage of one request: parse, media, tokenize, engine, recall, render.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=own,
        )
        self._stage = {name: self._stages.labels(name).observe for name in get_args(Stage)}
        self._items = Counter(
            "qvl_items", "Items embedded, or pairs scored, by model role.", ("role",), registry=own
        )
        by_replica = Counter(
            "qvl_replica_items", "The same, by the number of the replica.", ("replica",), registry=own
        )
        self._own_items = by_replica.labels(str(number)).inc
        self._tokens = Counter(
            "qvl_tokens", "Tokens the models read, by role and kind.", ("role", "kind"), registry=own
        )
        self._media = Counter("qvl_media", "Images and videos read.", ("role", "kind"), registry=own)
        self._pixels = Counter(
            "qvl_pixels", "Pixels the models read, after resizing.", ("role", "kind"), registry=own
        )
        self._cache = Counter(
            "qvl_cache_lookups", "Cache look-ups by cache and result.", ("cache", "result"), registry=own
        )
        self._errors = Counter(
            "qvl_errors", "Requests refused or failed, by reason.", ("code", "status", "route"), registry=own
        )
        # To find a series by its labels takes longer than to count in it.
        self._answered = cache(
            lambda route, status, key: (
                self._requests.labels(route, str(status)).inc,
                self._latency.labels(route).observe,
                self._by_key.labels(key, str(status)).inc,
            )
        )
        self._read = cache(
            lambda role, key: (
                self._items.labels(role).inc,
                self._tokens.labels(role, "text").inc,
                self._key_tokens.labels(key).inc,
            )
        )

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """Times one stage, also when it fails."""
        return _Timed(self._stage[name], None if self.tracer is None else self.tracer.stage(name))

    def usage(self, role: str, items: int, usage: Usage, key: str) -> None:
        count_items, count_tokens, count_of_key = self._read(role, key)
        count_items(items)
        self._own_items(items)
        count_tokens(usage.text_tokens)
        count_of_key(usage.total_tokens)
        if not usage.visual_tokens:
            return
        self._tokens.labels(role, "visual").inc(usage.visual_tokens)
        self._key_media.labels(key).inc(usage.images + usage.videos)
        self._media.labels(role, "image").inc(usage.images)
        self._media.labels(role, "video").inc(usage.videos)
        self._pixels.labels(role, "image").inc(usage.image_pixels)
        self._pixels.labels(role, "video").inc(usage.video_pixels)

    def held(self, what: Bounded, limit: int) -> Callable[[float], None]:
        """What is to be told how much there is, of at most `limit`."""
        now, most = self._held[what]
        most.set(limit)
        return now.set

    def queued(self, role: str, items: int) -> AbstractContextManager[None]:
        """Counts items as waiting or running in the model."""
        return _Counted(self._queued.labels(role), items)

    def lookup(self, cache: str) -> Callable[[bool], None]:
        """The function to call after each look-up in `cache`, with whether it was a hit."""
        missed, hit = (self._cache.labels(cache, result) for result in ("miss", "hit"))
        return lambda found: (hit if found else missed).inc()

    def error(self, code: str, status: int, route: str) -> None:
        self._errors.labels(code, str(status), route).inc()

    def in_flight(self) -> AbstractContextManager[None]:
        return _Counted(self._in_flight, 1)

    def request(self, route: str, status: int, seconds: float, key: str) -> None:
        count, observe, count_of_key = self._answered(route, status, key)
        count()
        observe(seconds)
        count_of_key()

    def ready(self, ready: bool) -> None:
        """Whether this replica takes requests."""
        self._ready.set(ready)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Timed(AbstractContextManager[None]):
    """A class, as `_Counted`: a generator for each stage took as long as all that is counted."""

    __slots__ = ("_observe", "_span", "_start")

    def __init__(self, observe: Callable[[float], None], span: AbstractContextManager[object] | None) -> None:
        self._observe = observe
        self._span = span

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        if self._span is not None:
            self._span.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._span is not None:
            self._span.__exit__(*error)
        self._observe(time.perf_counter() - self._start)


class _Counted(AbstractContextManager[None]):
    __slots__ = ("_count", "_gauge")

    def __init__(self, gauge: Gauge, count: int) -> None:
        self._gauge = gauge
        self._count = count

    def __enter__(self) -> None:
        self._gauge.inc(self._count)

    def __exit__(self, *error: object) -> None:
        self._gauge.dec(self._count)
