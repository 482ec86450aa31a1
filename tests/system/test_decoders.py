"""The real server while its decoding processes are killed: every image is still answered, and right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from tests import web
from tests.conftest import Server
from tests.engine.media.test_decoders import is_ours
from tests.parity import cases
from tests.replicas import gone, until
from tests.system.test_http_parity import url

pytestmark = pytest.mark.engine

ROUNDS, IMAGES = 6, 4


def decoders(server: Server) -> list[psutil.Process]:
    """Those that decode; the one that forks them is their parent."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in family if is_ours(each) and each.ppid() != server.process.pid]


def embed(server: Server, seed: int) -> np.ndarray:
    item = {"image": url(cases.image(333, 251, seed=seed), "image/png")}
    answer = web.post(f"{server.url}/v1/embeddings", json={"input": [item]}, timeout=120)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def test_killed_decoders_cost_no_answer(server: Server) -> None:
    """One kill a round: no file can lose both of its decoders."""
    killed, vectors = [], {}
    with ThreadPoolExecutor(IMAGES) as clients:
        for place in range(ROUNDS):
            seeds = range(1000 + place * IMAGES, 1000 + (place + 1) * IMAGES)
            asked = {seed: clients.submit(embed, server, seed) for seed in seeds}
            until(lambda: bool(decoders(server)))
            for each in decoders(server)[:1]:
                each.kill()
                killed.append(each)
            vectors |= {seed: each.result() for seed, each in asked.items()}
    assert len(killed) == ROUNDS
    assert gone(killed)
    for seed in (1000, 1000 + IMAGES):
        assert float(vectors[seed] @ embed(server, seed)) >= 0.99999
    assert decoders(server)
