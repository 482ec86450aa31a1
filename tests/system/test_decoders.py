"""The real server while its decoding processes are killed: every image is still answered, and right."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from tests.conftest import Server
from tests.engine.media.test_decoders import is_ours
from tests.parity import cases
from tests.system.test_http_parity import url
from tests.system.test_lifecycle import gone

pytestmark = pytest.mark.engine

IMAGES = 24
KILLS = 8
"""Never one file's two decoders: a kill waits for others to be answered in between."""


def decoders(server: Server) -> list[psutil.Process]:
    """Those that decode; the one that forks them is their parent."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in family if is_ours(each) and each.ppid() != server.process.pid]


def embed(server: Server, seed: int) -> np.ndarray:
    item = {"image": url(cases.image(333, 251, seed=seed), "image/png")}
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": [item]}, timeout=120)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def test_killed_decoders_cost_no_answer(server: Server) -> None:
    with ThreadPoolExecutor(4) as clients:
        answered = threading.Semaphore(0)

        def ask(seed: int) -> np.ndarray:
            vector = embed(server, 1000 + seed)
            answered.release()
            return vector

        asked = [clients.submit(ask, seed) for seed in range(IMAGES)]
        killed = []
        for _ in range(KILLS):
            assert answered.acquire(timeout=120) and answered.acquire(timeout=120)
            for each in decoders(server)[:1]:
                each.kill()
                killed.append(each)
        vectors = [each.result() for each in asked]
    assert killed and gone(killed)
    for seed in (0, IMAGES - 1):
        assert float(vectors[seed] @ embed(server, 1000 + seed)) >= 0.99999
    assert decoders(server)
