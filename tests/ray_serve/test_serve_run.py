"""Ray's `serve run` of the builder. Not beside another cluster, whose proxy would share port 8500 with this
one's: HAProxy asks it until it knows the replicas."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Pair
from tests.ray_serve.cluster import KEY, START_SECONDS, Cluster
from tests.ray_serve.front import free_port

pytestmark = pytest.mark.engine

RERANKED = 'qvl_requests_total{route="/v1/rerank",status="200"}'
BIN = Path(sys.executable).parent


def test_serve_run_of_the_builder(pair: Pair, tmp_path: Path) -> None:
    """It listens where it is told to, and the parts of a rerank come to the same address."""
    cluster = Cluster([], tmp_path / "log")
    settings = {
        "reranker": pair.reranker,
        "port": cluster.port,
        "stats_port": cluster.stats,
        "metrics_port": free_port(),
        "api_key": KEY,
        "split_tokens": 200,
        "max_replicas": 2,
        "replica_cpus": 0.5,
        "log_level": "debug",
        "enforce_eager": True,
    }
    cluster._command = [str(BIN / "serve"), "run", "qvl.ray_serve.app:build"]
    cluster._command += [f"{name}={value}" for name, value in settings.items()]
    cluster.READY = b"is ready at http"
    with cluster:
        answer = cluster.post("/v1/rerank", query="red", documents=["red shape " * 10] * 20)
        assert sorted(each["index"] for each in answer["results"]) == list(range(20))
        cluster.wait(lambda: sum(cluster.metric("both", RERANKED)) == 2, START_SECONDS)
        # vLLM is imported by now, which closes the handlers of everybody's log.
        assert re.search(
            r"^DEBUG .* request id=\S+ key=key-1 route=/v1/rerank status=200", cluster.said(), re.MULTILINE
        )
