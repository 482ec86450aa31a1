"""What a Qdrant server is asked, and what another run's changes to its collection do here."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from qvl.engine.errors import BadRequest, ConfigError
from qvl.engine.protocol import Condition
from qvl.engine.search.index import Entry
from qvl.engine.search.qdrant import BYTES, Qdrant
from qvl.engine.search.qdrant_filter import fits
from tests.engine.search.conftest import Local, entry, layout, unit_rows


@pytest.fixture
def client() -> Iterator[Local]:
    made = Local()
    yield made
    made.close()


def test_requests_stay_below_what_qdrant_takes(client: Local) -> None:
    """Vectors of 4096 numbers as JSON weigh more than most items."""
    index, width, count = Qdrant(client), 4096, 300
    index.prepare(layout(dimensions=width, prefix=width))
    entries = [
        Entry(id=f"d{i}", digest="", item=b'"%s"' % (b"x" * 20_000), metadata={}) for i in range(count)
    ]
    index.put(entries, unit_rows(count, width=width))
    assert sum(map(len, client.upserted)) == len(index) == count
    for points in client.upserted[:2]:
        assert len(orjson.dumps([point.model_dump() for point in points])) < BYTES


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_rounded_vectors_are_scored_whole(client: Local, dtype: str) -> None:
    index = Qdrant(client)
    index.prepare(layout(dtype=dtype))
    index.put([entry(0)], unit_rows(1))
    index.find(unit_rows(1)[0], 1, ())
    [asked] = client.queries
    assert (asked is not None and asked.quantization.rescore) is (dtype == "int8")


def test_a_collection_that_was_made_again_is_noticed(client: Local) -> None:
    reader, writer = Qdrant(client), Qdrant(client)
    writer.prepare(layout())
    writer.put([entry(0)], unit_rows(1))
    assert reader.layout == layout()
    assert len(reader.find(unit_rows(1)[0], 1, ())) == 1
    writer.clear()
    writer.prepare(layout(model="other"))
    assert reader.layout == layout(model="other")


@pytest.mark.parametrize("url", ["http://h:99999/x", "http://h:port/x", "http://[::1/x", "http://h:1/x/y"])
def test_a_bad_url_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match="is not http"):
        Qdrant.at(url)


@pytest.mark.parametrize("bound", ["", "soon"])
def test_a_bound_that_is_no_date_is_a_bad_request(bound: str) -> None:
    with pytest.raises(BadRequest, match=r"filter\.day: .*Qdrant has bounds for numbers and for dates"):
        fits(Condition(key="day", gte=bound))
