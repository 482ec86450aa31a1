"""`/v1/search` over an index of this model, or of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from qvl.engine.protocol import Content, ModelCard
from qvl.engine.search import canary
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Layout
from tests.engine.http.conftest import Client
from tests.engine.http.fake import EMBEDDER, FakeEngine, vector
from tests.engine.http.test_search import search


def with_canary(folder: Path, of: np.ndarray) -> str:
    index = Embedded(folder, writable=True)
    index.prepare(Layout(model="a-name", dimensions=8, prefix=8, dtype="float32", canary=canary.written(of)))
    index.close()
    return str(folder)


def test_an_index_knows_its_model_by_its_vectors(
    make: Callable[..., Client], engine: FakeEngine, tmp_path: Path
) -> None:
    """Whatever it is called; it is asked once."""
    own = vector(Content(texts=(canary.CANARY,)))
    client = make(index=with_canary(tmp_path / "renamed", own))
    assert search(client, query="a", filter={"a": 1})["candidates"] == 0
    assert search(client, query="b")["candidates"] == 0
    assert [each.dimensions for each in engine.requests] == [8, None, 8]
    error = search(make(index=with_canary(tmp_path / "other", vector(Content(texts=("x",))))), 422, query="a")
    assert (error["code"], "a cosine of" in error["message"]) == ("index_mismatch", True), error
    error = search(make(index=with_canary(tmp_path / "wider", np.tile(own, 2))), 422, query="a")
    assert "have 64 numbers, those had 128" in error["message"]


def test_a_name_that_asks_with_queries_is_the_same_model(make: Callable[..., Client], tmp_path: Path) -> None:
    index = with_canary(tmp_path / "index", vector(Content(texts=(canary.CANARY,))))
    assert search(make(index=index), query="a", model=f"{EMBEDDER}:query")["model"] == EMBEDDER


class TwoNames(FakeEngine):
    def models(self) -> list[ModelCard]:
        first, *rest = super().models()
        return [first, replace(first, id="a-name"), *rest]


def test_a_name_of_the_same_model_is_no_other_model(make: Callable[..., Client], tmp_path: Path) -> None:
    index = with_canary(tmp_path / "index", vector(Content(texts=(canary.CANARY,))))
    assert search(make(TwoNames(), index=index), query="a")["candidates"] == 0
