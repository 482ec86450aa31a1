"""`qvl serve --ray` with two replicas of the real engine: right answers, and a killed replica loses none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from qvl.engine.check.reference import Reference
from qvl.engine.protocol import Content
from tests import web
from tests.conftest import Pair, Server
from tests.engine.http import fuzz
from tests.engine.http.test_bad_requests import ALL, check
from tests.parity import cases
from tests.ray_serve.cluster import KEY, KEYED, START_SECONDS, Cluster, title
from tests.replicas import gone
from tests.system.test_http_parity import COSINE, EMBEDDED, SCORE, native

pytestmark = pytest.mark.engine

REPLICAS = 2
CLIENTS = 12
SPLIT = 1500
ANSWERED = 'qvl_requests_total{route="/v1/%s",status="200"}'
COUNT_SECONDS = 180
LONG = "word " * 8000


@pytest.fixture(scope="module")
def cluster(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    log = tmp_path_factory.mktemp("cluster") / "log"
    models = ["--embedder", str(pair.embedder), "--reranker", str(pair.reranker), "--dtype", "float32"]
    numbers = ["--replicas", str(REPLICAS), "--replica-cpus", "0.5", "--api-key", KEY]
    numbers += ["--split-tokens", str(SPLIT)]
    with Cluster(["qvl.engine.cli", "serve", "--ray", *models, *numbers], log) as running:
        running.wait(lambda: running.up("both") == REPLICAS, START_SECONDS)
        yield running


@pytest.mark.parametrize("case", ["text", "instruction", "two images and text", "mp4"])
def test_vectors_equal_the_reference(cluster: Cluster, pair: Pair, case: str, tmp_path: Path) -> None:
    content = EMBEDDED[case]()
    _, wanted = Reference(pair.embedder).embed([cases.as_item(content, tmp_path)])
    cluster.wait(lambda: cluster.up("both") == REPLICAS, START_SECONDS)
    before = cluster.metric("both", ANSWERED % "embeddings")

    def of_each() -> bool:
        data = cluster.post("/v1/embeddings", input=[native(content)])["data"]
        assert float(np.array(data[0]["embedding"], np.float32) @ wanted[0]) >= COSINE
        return min(more(cluster, "embeddings", before)) > 0

    cluster.wait(of_each, COUNT_SECONDS)


def more(cluster: Cluster, route: str, before: list[float]) -> list[float]:
    """Answers of each replica since then; they are counted once they have left."""
    return [now - then for now, then in zip(cluster.metric("both", ANSWERED % route), before, strict=True)]


def test_scores_equal_the_reference(cluster: Cluster, pair: Pair, tmp_path: Path) -> None:
    query = Content(texts=("red shape",), images=(cases.image(96, 64),))
    documents = [EMBEDDED["text"](), EMBEDDED["image"]()]
    items = [cases.as_item(each, tmp_path) for each in documents]
    _, _, scores = Reference(pair.reranker).rerank(cases.as_item(query, tmp_path), items, "Match it")
    body = {"query": native(query), "documents": [native(each) for each in documents]}
    results = cluster.post("/v1/rerank", instruction="Match it", **body)["results"]
    assert all(abs(each["relevance_score"] - scores[each["index"]]) <= SCORE for each in results)


def test_a_large_rerank_is_divided_and_its_answer_is_that_of_the_whole(cluster: Cluster) -> None:
    picture = native(EMBEDDED["image"]())
    body = {
        "query": native(Content(texts=("red shape",), images=(cases.image(96, 64),))),
        "documents": [*(f"{i} " + "red shape " * (i % 40) for i in range(60)), picture, {"image": "AAAA"}],
        "on_error": "skip",
        "raw_scores": True,
        "instruction": "Match it",
    }
    for _ in range(3):  # in the moment in which one is taken for down, the other gets both halves
        cluster.wait(lambda: cluster.up("both") == REPLICAS, START_SECONDS)
        before = cluster.metric("both", ANSWERED % "rerank")
        divided = cluster.post("/v1/rerank", **body)
        cluster.wait(lambda then=before: sum(more(cluster, "rerank", then)) == 2, COUNT_SECONDS)
        if (halves := more(cluster, "rerank", before)) == [1, 1]:
            break
    assert halves == [1, 1]
    whole = cluster.post("/v1/rerank", headers={**KEYED, "x-qvl-part": "1"}, **body)
    assert divided["usage"] == whole["usage"]
    assert divided["results"][-1] == whole["results"][-1]
    assert divided["results"][-1]["error"]["param"] == "documents[61].image"
    scores = [
        np.array(
            [each["relevance_score"] for each in sorted(answer["results"][:-1], key=lambda r: r["index"])]
        )
        for answer in (divided, whole)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=SCORE)


def test_bad_requests_get_the_answers_of_one_replica(cluster: Cluster) -> None:
    for bad in ALL:
        headers = {"content-type": "application/json", **KEYED, **bad.headers}
        answer = web.post(cluster.url + bad.route, content=bad.content(), headers=headers, timeout=60)
        try:
            check(bad, answer)
        except AssertionError as error:
            error.add_note(bad.name)
            raise


def test_damaged_requests_get_the_answers_of_one_replica(cluster: Cluster, server: Server) -> None:
    for name, route, body in fuzz.corpus():
        headers = {"content-type": "application/json", **KEYED}
        answers = [
            web.post(base + route, content=body, headers=headers, timeout=60)
            for base in (server.url, cluster.url)
        ]
        try:
            fuzz.compare(*answers)
        except AssertionError as error:
            error.add_note(name)
            raise


def test_keys(cluster: Cluster) -> None:
    url = f"{cluster.url}/v1/embeddings"
    bare = web.post(url, json={"input": "a"}, timeout=60)
    wrong = web.post(url, json={"input": "a"}, headers={"authorization": "Bearer x"}, timeout=60)
    assert [each.json()["error"]["code"] for each in (bare, wrong)] == ["missing_api_key", "invalid_api_key"]
    assert bare.status_code == wrong.status_code == 401
    assert web.get(f"{cluster.url}/health/ready", timeout=60).status_code == 200


def test_a_killed_replica_loses_no_request_that_is_tried_again(cluster: Cluster) -> None:
    over, ended = threading.Event(), list[int]()

    def client(number: int) -> list[int]:
        """The statuses of the last tries; each request gets two."""
        statuses, place = [], 0
        while not over.is_set():
            place += 1
            body = {"input": [f"{number} {place} {LONG if number % 3 == 0 else 'short'}"]}
            status = ask(cluster, body)
            if status != 200:
                time.sleep(5)  # what HAProxy's own answer says
                status = ask(cluster, body)
            statuses.append(status)
            ended.append(status)
        return statuses

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [clients.submit(client, number) for number in range(CLIENTS)]
        try:
            cluster.wait(lambda: len(ended) > CLIENTS, COUNT_SECONDS)
            victim = cluster.replicas()[0]
            engines = victim.children(recursive=True)
            assert any("EngineCore" in title(each) for each in engines)
            victim.kill()
            assert gone(engines)
            time.sleep(3)
        finally:
            over.set()
        statuses = [status for answer in answers for status in answer.result()]
    assert set(statuses) == {200}
    cluster.wait(lambda: cluster.up("both") == REPLICAS, START_SECONDS)


def ask(cluster: Cluster, body: dict[str, list[str]]) -> int:
    """The status; 0 when the connection was lost."""
    try:
        url = f"{cluster.url}/v1/embeddings"
        return web.post(url, json=body, headers=KEYED, timeout=120).status_code
    except httpx.TransportError:
        return 0


def test_told_to_stop_it_leaves_nothing(cluster: Cluster) -> None:
    cluster.stop()
