"""The index as a collection of a Qdrant server: `http(s)://HOST:PORT/COLLECTION`.

Each point has the vector that decides (`whole`) and, where the layout says so, a shorter one that recalls
(`prefix`). int8 is Qdrant's scalar quantisation in memory, with the numbers themselves as float16 on disk.
The layout is in the collection's metadata, which Qdrant has since 1.16.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import orjson
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.protocol import Condition, Hit
from qvl.engine.search.index import Entry, Layout, Vectors, agreed
from qvl.engine.search.qdrant_filter import fits

SHAPE = "http(s)://HOST:PORT/COLLECTION"
COLLECTION = "qvl"
SECONDS = 30
POINTS = 256  # of one request, whose body may have 32 MiB
BYTES = 16 << 20
NUMBER_BYTES = 24  # of a vector, in JSON
OVERSAMPLED = 4
RESCORED = models.SearchParams(  # left to itself Qdrant answers with the rounded vectors' cosines
    quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLED)
)
POINT_IDS = uuid.UUID("6f1c2a52-4e0f-4f0b-9d0d-7156c1a3e8b1")  # where items' ids become Qdrant's UUIDs


class Qdrant:
    def __init__(self, client: QdrantClient, collection: str = COLLECTION) -> None:
        self._client, self._collection = client, collection
        self._layout: Layout | None = None

    @classmethod
    def at(cls, url: str, key: str | None = None) -> Qdrant:
        """Raises ConfigError for a bad URL or another's collection, Unavailable when nobody answers there."""
        try:
            parts = urlsplit(url)
            port, collection = parts.port, parts.path.strip("/") or COLLECTION
        except ValueError as error:
            raise ConfigError(f"{url} is not {SHAPE}: {error}") from None
        if "/" in collection or not parts.hostname:
            raise ConfigError(f"{url} is not {SHAPE}")
        secure = parts.scheme == "https"
        client = QdrantClient(
            host=parts.hostname,
            port=port or (443 if secure else 6333),
            https=secure,
            api_key=key,
            timeout=SECONDS,
            check_compatibility=False,
        )
        index = cls(client, collection)
        try:
            index._layout = index._read()
        except BaseException:
            client.close()
            raise
        return index

    @property
    def layout(self) -> Layout | None:
        """Asked each time: another run may have made the collection again."""
        self._layout = self._read()
        return self._layout

    def prepare(self, layout: Layout) -> None:
        self._layout = agreed(self.layout, layout)
        with _as_unavailable():
            if not self._client.collection_exists(self._collection):
                self._client.create_collection(
                    self._collection,
                    vectors_config=_vectors(layout),
                    quantization_config=_quantised(layout),
                    metadata={"qvl": asdict(layout)},
                )

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        if self._layout is None:
            return {}
        with _as_unavailable():
            points = self._client.retrieve(
                self._collection, [_point_id(id) for id in ids], with_payload=["id", "digest"]
            )
        return {each.payload["id"]: each.payload["digest"] for each in points if each.payload}

    def put(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        layout, size = self._kept(), 0
        batch: list[models.PointStruct] = []
        for entry, vector in zip(entries, vectors, strict=True):
            more = len(entry.item) + NUMBER_BYTES * (layout.dimensions + layout.prefix)
            if batch and (len(batch) == POINTS or size + more > BYTES):
                self._upsert(batch)
                batch, size = [], 0
            batch.append(_point(entry, vector, layout))
            size += more
        self._upsert(batch)

    def remove(self, ids: Sequence[str]) -> int:
        there = [_point_id(id) for id in self.known(ids)]
        if there:
            with _as_unavailable():
                self._client.delete(self._collection, models.PointIdsList(points=list(there)), wait=True)
        return len(there)

    def find(self, vector: npt.NDArray[np.float32], count: int, where: Sequence[Condition]) -> list[Hit]:
        if (layout := self._layout or self.layout) is None:
            return []
        among = models.Filter(must=[fits(each) for each in where]) if where else None
        short = models.Prefetch(
            query=vector[: layout.prefix].tolist(), using="prefix", limit=count * OVERSAMPLED, filter=among
        )
        with _as_unavailable():
            found = self._client.query_points(
                self._collection,
                prefetch=short if layout.prefix < layout.dimensions else None,
                query=vector.tolist(),
                using="whole",
                query_filter=among,
                search_params=RESCORED if layout.dtype == "int8" else None,
                limit=count,
                with_payload=True,
            )
        return [_hit(point) for point in found.points]

    def __len__(self) -> int:
        if self.layout is None:
            return 0
        with _as_unavailable():
            return int(self._client.count(self._collection, exact=True).count)

    def load(self) -> None:
        """Qdrant builds its own graph in the background, and keeps it in memory."""

    def clear(self) -> None:
        with _as_unavailable():
            self._client.delete_collection(self._collection)
        self._layout = None

    def close(self) -> None:
        self._client.close()

    def _upsert(self, points: list[models.PointStruct]) -> None:
        if points:
            with _as_unavailable():
                self._client.upsert(self._collection, points, wait=True)

    def _kept(self) -> Layout:
        if self._layout is None:
            raise ConfigError(f"the collection {self._collection!r} is empty")
        return self._layout

    def _read(self) -> Layout | None:
        with _as_unavailable():
            if not self._client.collection_exists(self._collection):
                return None
            told = self._client.get_collection(self._collection).config.metadata or {}
        if "qvl" not in told:
            raise ConfigError(
                f"the collection {self._collection!r} was not made by `qvl search add` on Qdrant 1.16 or "
                "newer; name another"
            )
        return Layout(**told["qvl"])


def _vectors(layout: Layout) -> dict[str, models.VectorParams]:
    datatype = models.Datatype.FLOAT32 if layout.dtype == "float32" else models.Datatype.FLOAT16
    sizes = {"whole": layout.dimensions}
    if layout.prefix < layout.dimensions:
        sizes["prefix"] = layout.prefix
    return {
        name: models.VectorParams(
            size=size,
            distance=models.Distance.COSINE,
            datatype=datatype,
            on_disk=layout.dtype == "int8" or (name == "whole" and len(sizes) > 1),
        )
        for name, size in sizes.items()
    }


def _quantised(layout: Layout) -> models.ScalarQuantization | None:
    if layout.dtype != "int8":
        return None
    config = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    return models.ScalarQuantization(scalar=config)


def _point(entry: Entry, vector: npt.NDArray[np.float32], layout: Layout) -> models.PointStruct:
    given: dict[str, Any] = {"whole": vector.tolist()}
    if layout.prefix < layout.dimensions:
        given["prefix"] = vector[: layout.prefix].tolist()
    payload = {
        "id": entry.id,
        "digest": entry.digest,
        "item": orjson.loads(entry.item),
        "metadata": dict(entry.metadata),
    }
    return models.PointStruct(id=_point_id(entry.id), vector=given, payload=payload)


def _hit(point: models.ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(
        id=payload["id"],
        item=orjson.dumps(payload["item"]),
        metadata=payload["metadata"],
        similarity=float(point.score),
    )


def _point_id(id: str) -> str:
    return str(uuid.uuid5(POINT_IDS, id))


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (ApiException, ResponseHandlingException, httpx.HTTPError) as error:
        said = " ".join(str(error).split())[:300]
        raise Unavailable(f"Qdrant does not answer: {said}", code="index_failed") from None
