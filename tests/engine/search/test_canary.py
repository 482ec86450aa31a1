"""An index knows its model by that model's vector of a text, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvl.engine.search import canary
from qvl.engine.search.index import Index, IndexMismatch
from tests.engine.conftest import Run, Start, write
from tests.engine.search.conftest import entry, layout, unit_rows
from tests.engine.search.test_add import asked


def test_a_model_is_known_by_its_vector_of_a_text(index: Index) -> None:
    """Not by its name, which others may have; and it need not be to the last bit."""
    rows = unit_rows(2)
    index.prepare(layout(canary=canary.written(rows[0])))
    index.put([entry(0)], unit_rows(1))
    rounded = canary.written(rows[0] + 0.02 * rows[1])
    index.prepare(layout(model="renamed", canary=rounded))
    assert index.layout == layout(canary=canary.written(rows[0]))
    with pytest.raises(IndexMismatch, match=r"another model \(called 'm'\) than 'm' here: .* cosine of"):
        index.prepare(layout(canary=canary.written(rows[1])))
    with pytest.raises(IndexMismatch, match="64 numbers, those had 32"):
        index.prepare(layout(canary=canary.written(unit_rows(1, width=64)[0])))


def test_vectors_of_two_models_are_not_mixed(qvl: Run, fake: Start, tmp_path: Path) -> None:
    """Of one name, as checkpoints in folders of one name are."""
    source, index = write(tmp_path / "in.jsonl", ["a", "b"]), ("--index", tmp_path / "index")
    qvl("search", "add", source, *index, "--url", fake().url)
    write(source, ["a", "b", "c"])
    other = fake(seed=1)
    said = qvl("search", "add", source, *index, "--url", other.url, code=2)
    assert (
        "the index holds vectors of another model (called 'fake-embedder') than 'fake-embedder' here" in said
    )
    assert asked(other) == 0
    broken = fake(refusals=[[422, {}, {"error": {"message": "no", "code": "x", "param": None}}]])
    qvl("search", "add", source, *index, "--url", broken.url, "--overwrite", code=1)  # and nothing is cleared
    assert "1 put, 2 were there before" in qvl("search", "add", source, *index, "--url", fake(name="new").url)
