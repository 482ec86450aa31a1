"""The real server against the oracle, over HTTP: what leaves the port equals the official code."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvl.engine.check.reference import Reference
from qvl.engine.protocol import Content, Source
from tests import web
from tests.conftest import Pair, Server
from tests.parity import cases

pytestmark = pytest.mark.engine

COSINE = 0.999999
SCORE = 1e-5
EMBEDDED: dict[str, Callable[[], Content]] = {
    "text": lambda: Content(texts=("Über 東京 🎉",)),
    "instruction": lambda: Content(texts=("a",), instruction="Find the page"),
    "nothing": Content,
    "image": lambda: Content(images=(cases.image(333, 251),)),
    "two images and text": lambda: Content(
        images=(cases.image(64, 48), cases.image(320, 256, seed=3)), texts=("which?",)
    ),
    "frames and text": lambda: Content(videos=(cases.frames(5),), texts=("moves",)),
    "mp4": lambda: Content(videos=(cases.clip(24),)),
    "webm": lambda: Content(videos=(cases.clip(24, container="webm"),)),
}


def url(source: Source, kind: str) -> str:
    assert isinstance(source, bytes)
    return f"data:{kind};base64,{base64.b64encode(source).decode()}"


def native(content: Content) -> dict[str, Any]:
    """The item as JSON."""
    item: dict[str, Any] = {}
    if content.texts:
        item["text"] = list(content.texts)
    if content.images:
        item["image"] = [url(image, "image/png") for image in content.images]
    if content.videos:
        item["video"] = [
            [url(frame, "image/png") for frame in video]
            if isinstance(video, tuple)
            else url(video, "video/mp4")
            for video in content.videos
        ]
    if content.instruction:
        item["instruction"] = content.instruction
    return item


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    answer = web.post(f"{server.url}{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def embed(server: Server, items: list[Any], **options: Any) -> np.ndarray:
    data = post(server, "/v1/embeddings", input=items, encoding_format="base64", **options)["data"]
    assert [entry["index"] for entry in data] == list(range(len(items)))
    return np.stack([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data])


@pytest.fixture(scope="module")
def embedder(pair: Pair) -> Reference:
    return Reference(pair.embedder)


@pytest.mark.parametrize("case", EMBEDDED)
def test_vectors_equal_the_reference(server: Server, embedder: Reference, case: str, tmp_path: Path) -> None:
    content = EMBEDDED[case]()
    ids, wanted = embedder.embed([cases.as_item(content, tmp_path)])
    answer = post(server, "/v1/embeddings", input=[native(content)])
    got = np.array(answer["data"][0]["embedding"], dtype=np.float32)
    assert float(got @ wanted[0]) >= COSINE
    assert answer["usage"]["prompt_tokens"] == len(ids[0])


@pytest.mark.parametrize("dimensions", [1, 2, 7, 64, 127, 128])
def test_any_prefix_is_cut_then_normalised(server: Server, dimensions: int) -> None:
    full = embed(server, ["a cat"])[0]
    cut = embed(server, ["a cat"], dimensions=dimensions)[0]
    wanted = full[:dimensions] / np.linalg.norm(full[:dimensions])
    assert cut.shape == (dimensions,)
    assert np.abs(cut - wanted).max() < 1e-6


def test_scores_equal_the_reference(server: Server, pair: Pair, tmp_path: Path) -> None:
    query = Content(texts=("red shape",), images=(cases.image(96, 64),))
    documents = [make() for name, make in EMBEDDED.items() if name != "instruction"]
    items = [cases.as_item(each, tmp_path) for each in documents]
    _, logits, scores = Reference(pair.reranker).rerank(cases.as_item(query, tmp_path), items, "Match it")
    body = {
        "query": native(query),
        "documents": [native(each) for each in documents],
        "instruction": "Match it",
    }
    results = post(server, "/v1/rerank", **body)["results"]
    got = {entry["index"]: entry["relevance_score"] for entry in results}
    assert [entry["relevance_score"] for entry in results] == sorted(got.values(), reverse=True)
    assert np.abs([got[i] - scores[i] for i in range(len(scores))]).max() <= SCORE
    raw = post(server, "/v1/rerank", raw_scores=True, **body)["results"]
    assert max(abs(entry["relevance_score"] - logits[entry["index"]]) for entry in raw) <= 1e-4


def test_order_is_kept_under_concurrency(server: Server) -> None:
    """Many requests at once, each a mixture in its own order: every vector is the one of its item alone."""
    pool = [f"text {i}" for i in range(20)] + [
        native(EMBEDDED["image"]()),
        native(EMBEDDED["frames and text"]()),
    ]
    alone = [embed(server, [item])[0] for item in pool]
    orders = [np.random.default_rng(seed).permutation(len(pool)) for seed in range(12)]
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda order: embed(server, [pool[i] for i in order]), orders))
    for order, rows in zip(orders, answers, strict=True):
        for place, index in enumerate(order):
            assert float(rows[place] @ alone[index]) >= 0.99999


def test_skip_answers_the_rest(server: Server) -> None:
    items = ["good", {"image": "data:image/png;base64,AAAA"}, "also good"]
    data = post(server, "/v1/embeddings", input=items, on_error="skip")["data"]
    assert [entry["object"] for entry in data] == ["embedding", "error", "embedding"]
    assert data[1]["error"]["param"] == "input[1].image"
    assert np.abs(np.array(data[2]["embedding"], np.float32) - embed(server, ["also good"])[0]).max() < 1e-6


def test_a_bad_document_names_itself_and_fails_before_the_engine(server: Server) -> None:
    body = {"query": "q", "documents": ["a", {"image": "data:text/plain;base64,aGVsbG8="}]}
    answer = web.post(f"{server.url}/v1/rerank", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "documents[1].image")


def test_token_ids_are_fed_as_they_are(server: Server, embedder: Reference) -> None:
    ids, wanted = embedder.embed([{"text": ["a cat"]}])
    assert float(embed(server, [ids[0]])[0] @ wanted[0]) >= COSINE
