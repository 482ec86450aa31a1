"""An index without items, perhaps one whose name was mistaken, is told of: searches answer with nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Entry, Layout
from tests.engine.http.conftest import Client
from tests.engine.http.fake import EMBEDDER, WIDTH


@pytest.mark.parametrize("items", [0, 1])
def test_a_server_says_so_at_its_start(
    make: Callable[..., Client], tmp_path: Path, caplog: pytest.LogCaptureFixture, items: int
) -> None:
    folder = tmp_path / "index"
    if items:
        index = Embedded(folder, writable=True)
        index.prepare(Layout(model=EMBEDDER, dimensions=WIDTH, prefix=WIDTH, canary=""))
        index.put([Entry(id="a", digest="a", item=b'"a"', metadata={})], np.ones((1, WIDTH), np.float32))
        index.close()
    make(index=str(folder))
    for thread in threading.enumerate():
        if thread.name == "qvl-index-load":
            thread.join()
    assert (f"the index {folder} holds no items yet" in caplog.text) is not bool(items)
