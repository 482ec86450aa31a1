"""The trained pair on the real engine: it equals the reference, and it finds what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.pair import evaluate
from qvl.engine import EmbedRequest, Engine, EngineConfig, RerankRequest
from qvl.engine.check.reference import Reference
from qvl.engine.demo import bundled
from qvl.engine.demo.tasks import Item
from qvl.engine.demo.world import edited, random_scene
from qvl.engine.protocol import Content
from qvl.engine.quantize.examples import content
from tests.parity.conftest import Run, vllm_warnings

pytestmark = pytest.mark.engine

COSINE, SCORE = 0.999999, 1e-5
FLOORS = {"text to image": 0.80, "image to text": 0.80, "mixed": 0.60, "page": 0.70, "video": 0.70}
"""Recall@1, well below what was measured among more (engine/demo/pair/README.md)."""
COUNTS = {"video": 40}
COUNT = 100
EMBEDDER, RERANKER = bundled.bundled_pair()


@pytest.fixture(scope="module")
def engine(run: Run[Any]) -> Iterator[Engine]:
    with vllm_warnings():
        config = EngineConfig(
            embedder=str(EMBEDDER),
            reranker=str(RERANKER),
            dtype="float32",
            answer_cache=0,
            enforce_eager=True,
        )
        started: Engine = run(Engine.start(config))
    yield started
    run(started.stop())


@pytest.mark.parametrize("task", ["text to image", "page", "mixed", "video"])
def test_equals_the_reference(
    task: str, engine: Engine, run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    [example] = evaluate.examples(task, 4 if task == "mixed" else 1)[:1]
    both = content(example.query), content(example.document)
    ids, expected = Reference(EMBEDDER).embed([as_item(each) for each in both])
    request = EmbedRequest(input=both)
    assert run(engine.embed_ids(request)) == ids
    assert float((run(engine.embed(request)).vectors * expected).sum(1).min()) >= COSINE


@pytest.mark.parametrize("task", ["text to image", "image to text", "page", "video"])
def test_scores_equal_the_reference(
    task: str, engine: Engine, run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    pairs = evaluate.examples(task, 3)
    query, documents = content(pairs[0].query), tuple(content(each.document) for each in pairs)
    ids, logits, scores = Reference(RERANKER).rerank(
        as_item(query), [as_item(each) for each in documents], query.instruction
    )
    request = RerankRequest(query=query, documents=documents, instruction=query.instruction)
    assert run(engine.rerank_ids(request)) == ids
    result = run(engine.rerank(request))
    np.testing.assert_allclose(result.scores, scores, rtol=0, atol=SCORE)
    np.testing.assert_allclose(result.logits, logits, rtol=0, atol=10 * SCORE)


def test_reranking_puts_the_right_one_before_near_misses(engine: Engine, run: Run[Any]) -> None:
    rng = np.random.default_rng(evaluate.SEED)
    firsts = []
    for _ in range(24):
        scene = random_scene(rng)
        misses = list({edited(scene, rng)[0] for _ in range(5)} - {scene})
        asked = Content(texts=(scene.caption(rng),))
        shown = tuple(content(Item(image=each.draw(rng))) for each in (*misses, scene))
        scores = run(engine.rerank(RerankRequest(query=asked, documents=shown))).scores
        firsts.append(int(np.argmax(scores)) == len(misses))
    assert np.mean(firsts) >= 0.75


@pytest.mark.parametrize("task", FLOORS)
def test_finds_what_is_asked_for(task: str, engine: Engine, run: Run[Any]) -> None:
    pairs = evaluate.examples(task, COUNTS.get(task, COUNT))
    queries, documents = (
        run(engine.embed(EmbedRequest(input=tuple(content(each) for each in side)))).vectors
        for side in ([e.query for e in pairs], [e.document for e in pairs])
    )
    assert evaluate.recall(queries @ documents.T) >= FLOORS[task]


def test_half_the_dimensions_cost_little(engine: Engine, run: Run[Any]) -> None:
    pairs = evaluate.examples("text to image", COUNT)
    shares = []
    for width in (None, 64):
        queries, documents = (
            run(engine.embed(EmbedRequest(input=tuple(content(each) for each in side), dimensions=width)))
            for side in ([e.query for e in pairs], [e.document for e in pairs])
        )
        shares.append(evaluate.recall(queries.vectors @ documents.vectors.T))
    assert shares[1] >= shares[0] - 0.05
