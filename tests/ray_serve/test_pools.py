"""Separate pools on a real cluster with stand-in engines: one URL, scaling by tokens, drains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from importlib.metadata import version

import psutil
import pytest

from qvl.engine.machine import cores
from tests import web
from tests.engine.http.test_bad_requests import SHAPES, check
from tests.ray_serve.cluster import KEY, KEYED, Cluster, title
from tests.replicas import gone

pytestmark = pytest.mark.engine

CLIENTS = 6
SCALE_SECONDS = PROXY_SECONDS = 900
COUNT_SECONDS = 180
RERANKED = 'qvl_requests_total{route="/v1/rerank",status="200"}'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    log = tmp_path_factory.mktemp("pools") / "log"
    numbers = ["--max-replicas=3", "--replica-tokens=70", "--upscale-seconds=1", "--downscale-seconds=2"]
    numbers += ["--split-tokens=800", "--drain-window=10"]  # a machine that is busy is slow to tell HAProxy
    command = ["tests.ray_serve.serve_fakes", f"--api-key={KEY}", "--replica-cpus=0.1", *numbers]
    with Cluster(command, log) as running:
        yield running


def test_every_route_reaches_its_pool(cluster: Cluster) -> None:
    assert cluster.post("/v1/embeddings", input="a")["model"] == "tiny-embedder"
    assert cluster.post("/v1/rerank", query="a", documents=["a"])["model"] == "tiny-reranker"
    assert cluster.post("/v2/embed", texts=["a"])["embeddings"]
    assert len(cluster.post("/", inputs=["a", "b"])) == 2
    assert cluster.post("/score", queries="a", documents=["a"])["model"] == "tiny-reranker"
    models = web.get(f"{cluster.url}/v1/models", headers=KEYED, timeout=60).json()["data"]
    assert [model["role"] for model in models] == ["embedder", "reranker"]
    assert web.get(f"{cluster.url}/health/ready", timeout=60).json() == {"status": "ready"}


def test_replicas_divide_the_cores_and_say_what_they_are(cluster: Cluster) -> None:
    """There may be six beside each other."""
    each = max(1, cores() // 6)
    cluster.wait(lambda: cluster.said().count(f", workers={each}") >= 2, 60)
    assert f"qvl {version('qvl')}, vllm " in cluster.said()
    assert KEY not in cluster.said()


@pytest.mark.parametrize("bad", SHAPES[::5], ids=lambda bad: bad.name)
def test_bad_requests_get_the_answers_of_one_replica(cluster: Cluster, bad: object) -> None:
    headers = {"content-type": "application/json", **KEYED, **bad.headers}
    check(bad, web.post(cluster.url + bad.route, content=bad.content(), headers=headers, timeout=60))


def test_a_key_is_asked_for_at_every_route(cluster: Cluster) -> None:
    for path in ("/v1/embeddings", "/v1/rerank", "/score", "/nothing"):
        answer = web.post(cluster.url + path, json={}, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key"), path
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_burst_adds_replicas_and_their_end_loses_nothing(cluster: Cluster) -> None:
    def nap(seconds: float) -> int:
        body = {"input": f"nap {seconds}"}
        return web.post(f"{cluster.url}/v1/embeddings", json=body, headers=KEYED, timeout=60).status_code

    cluster.wait(lambda: cluster.up("embedder") == cluster.up("reranker") == 1, SCALE_SECONDS)
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = []

        def grown() -> bool:
            done = sum(each.done() for each in answers)
            answers.extend(clients.submit(nap, 2) for _ in range(CLIENTS - (len(answers) - done)))
            return cluster.up("embedder") == 3

        cluster.wait(grown, SCALE_SECONDS)

        def shrunk() -> bool:
            # One at a time: too little for two replicas, and always one on its way as they leave.
            if answers[-1].done():
                answers.append(clients.submit(nap, 1))
            return cluster.up("embedder") == 1

        cluster.wait(shrunk, SCALE_SECONDS)
        assert {each.result() for each in answers} == {200}
    cluster.wait(lambda: cluster.up("reranker") == 1, SCALE_SECONDS)


def test_a_killed_proxy_comes_back_and_the_replicas_stay(cluster: Cluster) -> None:
    # One of each pool and the gateway: those that the burst brought may still be leaving.
    cluster.wait(lambda: len(cluster.replicas()) == 3, SCALE_SECONDS)
    replicas = {each.pid for each in cluster.replicas()}
    actors = named(cluster, r"ray::\w*Proxy")
    proxies = named(cluster, "haproxy")
    assert proxies
    assert actors, "who looks after it"
    for each in actors:
        each.kill()
    assert gone([*actors, *proxies]), "one that is left would keep the port"

    cluster.wait(lambda: ask(cluster) == 200, PROXY_SECONDS)
    cluster.wait(lambda: cluster.up("embedder") == cluster.up("reranker") == 1, PROXY_SECONDS)
    cluster.wait(lambda: {ask(cluster) for _ in range(20)} == {200}, PROXY_SECONDS)  # it may be loaded again
    assert {each.pid for each in cluster.replicas()} == replicas


def named(cluster: Cluster, pattern: str) -> list[psutil.Process]:
    return [each for each in cluster.family() if re.search(pattern, title(each))]


def ask(cluster: Cluster) -> int:
    body = {"input": "a"}
    return web.post(f"{cluster.url}/v1/embeddings", json=body, headers=KEYED, timeout=60).status_code


def test_a_large_rerank_is_divided_on_every_route_of_its_pool(cluster: Cluster) -> None:
    def asked() -> float:
        return sum(cluster.metric("reranker", RERANKED))

    documents = ["a b", "c"] * 20
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        wanted = asked() + 1 + (path == "/v1/rerank")
        results = cluster.post(path, query="a b", documents=documents)["results"]
        assert [each["index"] for each in results] == [*range(0, 40, 2), *range(1, 40, 2)]
        cluster.wait(lambda wanted=wanted: asked() == wanted, COUNT_SECONDS)  # they come after the answer


def test_a_client_that_leaves_stops_the_parts_of_its_request(cluster: Cluster) -> None:
    def in_flight() -> float:
        """But the look at it itself."""
        found = cluster.metric("reranker", "qvl_requests_in_flight")
        return sum(found) - len(found)

    body = json.dumps({"query": "a", "documents": [*(["a"] * 39), "!slow"]})
    client = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    client.request("POST", "/v1/rerank", body, {**KEYED, "content-type": "application/json"})
    cluster.wait(lambda: in_flight() == 2, COUNT_SECONDS)  # the whole, and the part that is slow
    client.close()
    cluster.wait(lambda: in_flight() == 0, COUNT_SECONDS)


def test_told_to_stop_it_leaves_nothing(cluster: Cluster) -> None:
    cluster.stop()
