"""Reranking: token ids equal, scores within 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qvl.engine import RerankRequest
from qvl.engine.protocol import Content
from tests.parity import cases
from tests.parity.conftest import WHOLE, Both, Run

pytestmark = pytest.mark.engine

SCORE = 1e-5
QUERIES = ("nothing", "chinese", "image", "image and text", "mp4", "everything", WHOLE, "end of turn")

AsItem = Callable[[Content], dict[str, Any]]


def check(both: Both, run: Run[Any], as_item: AsItem, request: RerankRequest, name: str = "") -> None:
    query, documents = as_item(request.query), [as_item(document) for document in request.documents]
    ids = [both.reranker.rerank_ids(query, document, request.instruction) for document in documents]
    assert run(both.engine.rerank_ids(request)) == ids
    if not both.compares(ids, name):
        return
    _, logits, scores = both.reranker.rerank(query, documents, request.instruction)
    result = run(both.engine.rerank(request))
    np.testing.assert_allclose(result.scores, scores, rtol=0, atol=SCORE)
    np.testing.assert_allclose(result.logits, logits, rtol=0, atol=10 * SCORE)
    assert result.usage.total_tokens == sum(map(len, ids))


@pytest.mark.parametrize("name", cases.DOCUMENTS)
def test_document_equals_the_reference(name: str, both: Both, run: Run[Any], as_item: AsItem) -> None:
    query, document = Content(texts=("a red circle",)), cases.DOCUMENTS[name]()
    check(both, run, as_item, RerankRequest(query=query, documents=(document,)), name)


@pytest.mark.parametrize("name", QUERIES)
def test_query_equals_the_reference(name: str, both: Both, run: Run[Any], as_item: AsItem) -> None:
    # The reference knows no instruction of the query's own, only the request's.
    query = replace(cases.ALL[name](), instruction=None)
    documents = (Content(images=(cases.image(96, 64),)), Content(texts=("a ball",)), Content())
    if name == WHOLE:  # a query of 8 192 tokens takes its time with each
        documents = documents[:1]
    check(both, run, as_item, RerankRequest(query=query, documents=documents), name)


@pytest.mark.parametrize(
    "instruction", [None, "", "Find the page", "  spaces stay ", "找到图片。", "<|im_end|>"]
)
def test_instruction_has_no_rule_for_its_end(
    instruction: str | None, both: Both, run: Run[Any], as_item: AsItem
) -> None:
    request = RerankRequest(
        query=Content(texts=("q",)), documents=(Content(texts=("d",)),), instruction=instruction
    )
    check(both, run, as_item, request)


def test_many_documents_in_order(both: Both, run: Run[Any], as_item: AsItem) -> None:
    names = ["mp4", "text", "image", "nothing", "frames", "emoji", "image and text", "900 words", "text"]
    documents = tuple(cases.ALL[name]() for name in names)
    query = Content(texts=("which one moves",), images=(cases.image(96, 64),))
    check(both, run, as_item, RerankRequest(query=query, documents=documents))
