"""The quality grid: its numbers on small examples by hand, and its short form on the real engine."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.asks import Role
from benchmarks.quality import answers, bench, metrics, rows, stored
from benchmarks.quality.__main__ import show
from benchmarks.quality.run import Grid, Options
from benchmarks.quality.tasks import converted, generated
from benchmarks.quality.variants import SERVED, STORED, Stored
from qvl.engine.demo import bundled
from qvl.engine.demo.tasks import Item

# vLLM and compressed-tensors make torch build script methods on import, which are deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning")
SHORT: dict[str, tuple[Role, ...]] = {
    "bfloat16": ("embedder",),
    "INT8 W8A8": ("embedder",),
    "FP8 W8A8": ("reranker",),
}
"""Rows and whom they are run with here; an engine for each is most of the time."""

COUNT, TOP = 48, 5
"""Queries, and how many documents of one are reranked: torch multiplies FP8 slowly on a CPU."""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, list[rows.Row], int]:
    """The trained pair, on engines of the CPU build."""
    embedder, reranker = bundled.bundled_pair()
    options = Options(
        models={"embedder": embedder, "reranker": reranker},
        tasks=[generated("text to image", COUNT)],
        rankings=4,
        variants=[replace(each, roles=SHORT[each.name]) for each in SERVED if each.name in SHORT],
    )
    made = Grid(options, Console(file=io.StringIO()))
    path = tmp_path_factory.mktemp("quality") / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "TOP", TOP)
        code = show(made, made.console, path)
    return made, [msgspec.json.decode(line, type=rows.Row) for line in path.read_bytes().splitlines()], code


@pytest.mark.engine
def test_every_row_holds_its_floor(grid: tuple[Grid, list[rows.Row], int]) -> None:
    run, made, code = grid
    assert (run.failures, code) == ([], 0)
    served = {(role, name) for name, roles in SHORT.items() for role in roles}
    assert {(row.role, row.variant) for row in made} == served | {("embedder", each.name) for each in STORED}


@pytest.mark.engine
def test_the_rows_retrieve(grid: tuple[Grid, list[rows.Row], int]) -> None:
    for row in grid[1]:
        if row.role == "embedder" and "1/16" not in row.variant:
            assert min(row.reference_ndcg, row.ndcg) > 0.7, row.variant
            assert (row.queries, row.documents) == (COUNT, COUNT)


@pytest.mark.engine
def test_quantised_scores_spread_over_the_unit_interval(grid: tuple[Grid, list[rows.Row], int]) -> None:
    """Elsewhere an FP8 reranker was seen to say only 0.5 and 1."""
    for row in grid[1]:
        if row.role == "reranker":
            assert row.score_spread is not None
            low, high = row.score_spread
            assert 0.0 < low < 0.35, row.variant
            assert 0.65 < high < 1.0, row.variant


def test_a_row_under_its_floor_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    good = row()
    assert not rows.under([good])
    assert "nDCG@10 lost 0.300" in rows.under([msgspec.structs.replace(good, ndcg=0.6)])
    assert "correlation 0.5000" in rows.under([msgspec.structs.replace(good, correlation=0.5)])
    guessing = msgspec.structs.replace(good, role="reranker", reference_ndcg=0.3, ndcg=0.1)
    assert not rows.under([guessing])
    assert "nDCG" in rows.under([msgspec.structs.replace(guessing, reference_ndcg=0.8)])
    nan = msgspec.structs.replace(good, correlation=float("nan"), ndcg=float("nan"))
    assert "nDCG" in rows.under([nan])
    assert "correlation" in rows.under([nan])
    options = Options(models={"embedder": Path("m"), "reranker": Path("r")}, tasks=[], rankings=0)
    failing = Grid(options, Console(file=io.StringIO()))
    failing.rows = lambda: iter([[good]])  # type: ignore[method-assign]
    assert show(failing, failing.console, None) == 0
    failing.failures.append("embedder, bfloat16: too little")
    assert show(failing, failing.console, None) == 1
    assert "too little" in capsys.readouterr().out


def row() -> rows.Row:
    return rows.Row(
        hardware="",
        versions={},
        commit="",
        date="",
        model="m",
        role="embedder",
        variant="bfloat16",
        task="t",
        queries=1,
        documents=1,
        ndcg=0.9,
        reference_ndcg=0.9,
        recall_1=1,
        recall_10=1,
        correlation=1,
    )


def test_ndcg_of_graded_documents() -> None:
    """By hand: grades 2 and 1 at the second and third place of one query, the best possible in another."""
    scores = np.array([[0.9, 0.8, 0.7], [3, 2, 1], [1, 2, 3]], np.float32)
    grades = np.array([[0, 2, 1], [2, 1, 0], [0, 0, 0]], np.float32)
    first = (2 / np.log2(3) + 1 / np.log2(4)) / (2 / np.log2(2) + 1 / np.log2(3))
    assert metrics.ndcg(scores, grades) == pytest.approx((first + 1) / 2)
    assert metrics.recall(scores, grades, 1) == pytest.approx((0 + 1 / 2) / 2)
    assert metrics.recall(scores, grades, 2) == pytest.approx((1 / 2 + 1) / 2)


def test_correlation_is_of_each_query() -> None:
    scores = np.random.default_rng(0).random((3, 20)).astype(np.float32)
    shifted = scores * np.array([[1], [2], [3]], np.float32) + 5
    assert metrics.correlation(shifted, scores) == pytest.approx(1, abs=1e-5)
    assert metrics.correlation(-scores, scores) == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("kept", STORED, ids=lambda each: each.name)
def test_stored_vectors_keep_the_order(kept: Stored) -> None:
    """Documents at growing angles from each query, far enough apart for a bit a dimension."""
    rng = np.random.default_rng(5)
    queries = stored.cut(rng.standard_normal((8, 1024)).astype(np.float32), 1024)
    scores = stored.scores(queries, queries, kept)
    assert (scores.argmax(1) == np.arange(8)).all()
    exact = kept.query not in ("binary", "ubinary") and kept.document not in ("binary", "ubinary")
    if exact:
        cut = stored.cut(queries, round(1024 * kept.share))
        assert np.abs(scores - cut @ cut.T).max() < 5e-3


def test_signs_count_the_hamming_distance() -> None:
    rows = np.array([[1, -1, 1, 1, -1], [1, 1, -1, 1, -1]], np.float32)
    kept = replace(STORED[0], query="binary", document="ubinary")
    assert stored.scores(rows, rows, kept).tolist() == [[5, 1], [1, 5]]


def test_pictures_shrink_to_half_of_the_largest() -> None:
    big, small = Item(image=Image.new("RGB", (128, 64))), Item(image=Image.new("RGB", (32, 32)), text="t")
    asked = answers.Asked([small], [big], [(small, [big, small])])
    halved = bench.narrowed(asked, ["embedder", "reranker"], half=True)
    assert answers.largest([*halved.documents, *halved.queries]) <= 128 * 64 // 2 * 1.05
    assert halved.queries[0] == small
    assert halved.rankings[0][1][0].image.size == halved.documents[0].image.size  # type: ignore[union-attr]
    assert not bench.narrowed(asked, ["reranker"], half=False).queries


def test_a_loaded_mteb_task_becomes_ours() -> None:
    """Of the shape that mteb 2.26 gives; the real package was held against this by hand (README)."""
    picture = Image.new("L", (4, 4))
    split = {
        "queries": [{"id": "q1", "text": "who?"}, {"id": "q2", "text": "what?", "instruction": "Find it."}],
        "corpus": [{"id": "d1", "title": "A", "text": "b"}, {"id": "d2", "image": picture}],
        "relevant_docs": {"q1": {"d1": 2, "d9": 1}, "q2": {"d2": 1}},
    }
    task: Any = SimpleNamespace(
        metadata=SimpleNamespace(name="Some", prompt={"query": "Retrieve."}),
        dataset={"default": {"test": split, "train": split}},
        eval_splits=["test"],
        convert_v1_dataset_format_to_v2=lambda _: None,
    )
    (made,) = converted(task)
    assert made.name == "Some test"
    assert [each.instruction for each in made.queries.values()] == ["Retrieve.", "Find it."]
    assert made.corpus["d1"] == Item(text="A b")
    assert made.corpus["d2"].image is not None
    assert made.corpus["d2"].image.mode == "RGB"
    assert made.grades().tolist() == [[2, 0], [0, 1]]
