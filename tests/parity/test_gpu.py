"""The trained pair on a GPU: compiled, loaded again as it was compiled, and in FP8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.pair import evaluate
from qvl.engine import EmbedRequest, Engine, EngineConfig, RerankRequest
from qvl.engine.check.reference import Reference
from qvl.engine.demo import bundled
from qvl.engine.protocol import Content
from qvl.engine.quantize.examples import content
from tests.parity.conftest import Run, vllm_warnings

pytestmark = [pytest.mark.engine, pytest.mark.gpu]

EMBEDDER, RERANKER = bundled.bundled_pair()
FP8 = {"quantization": "fp8", "quantize_vision": True}
SETTINGS: dict[str, dict[str, Any]] = {"compiled": {}, "loaded as compiled": {}, "FP8": FP8}
COSINE = {"compiled": 0.999, "loaded as compiled": 0.999, "FP8": 0.99}
SCORE = {"compiled": 0.02, "loaded as compiled": 0.02, "FP8": 0.1}
"""Against float32 on the CPU. The tests run in order: the second engine finds what the first one left."""
TASKS = ("text to image", "page", "mixed", "video")


@pytest.fixture(scope="module", params=SETTINGS)
def named(request: pytest.FixtureRequest, run: Run[Any]) -> Iterator[tuple[str, Engine]]:
    settings = SETTINGS[request.param]
    with vllm_warnings():
        config = EngineConfig(
            embedder=str(EMBEDDER), reranker=str(RERANKER), dtype="bfloat16", answer_cache=0, **settings
        )
        engine: Engine = run(Engine.start(config))
    yield request.param, engine
    run(engine.stop())


def test_answers_are_the_reference_s(
    named: tuple[str, Engine], run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    name, engine = named
    pairs = [evaluate.examples(task, 4 if task == "mixed" else 1)[0] for task in TASKS]
    items = tuple(content(side) for pair in pairs for side in (pair.query, pair.document))
    _, expected = Reference(EMBEDDER).embed([as_item(each) for each in items])
    vectors = run(engine.embed(EmbedRequest(input=items * 20))).vectors
    cosines = (vectors * np.tile(expected, (20, 1))).sum(1)
    assert float(cosines.min()) >= COSINE[name]
    query, documents = content(pairs[0].query), items[1::2]
    _, _, scores = Reference(RERANKER).rerank(as_item(query), [as_item(each) for each in documents])
    ranked = run(engine.rerank(RerankRequest(query=query, documents=documents * 20)))
    np.testing.assert_allclose(ranked.scores, np.tile(scores, 20), rtol=0, atol=SCORE[name])
