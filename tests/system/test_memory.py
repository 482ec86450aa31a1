"""The server's memory stays where it is: 5 000 mixed requests leave it within 5 % of what 1 000 left."""

from __future__ import annotations

import base64
import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.conftest import Pair, start_server

pytestmark = pytest.mark.engine

CLIENTS = 8
WARM, FULL = 1000, 5000
MOST = 1.05


def picture(seed: int) -> str:
    noise = random.Random(seed)
    image = Image.frombytes("RGB", (64, 64), noise.randbytes(64 * 64 * 3)).resize((160, 128))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def request(number: int) -> tuple[str, dict[str, Any], int]:
    """Path, body, expected status: mostly text, some rerank, images (half of them seen before), mistakes."""
    kind = number % 10
    if kind < 6:
        return "/v1/embeddings", {"input": f"text {number}", "encoding_format": "base64"}, 200
    if kind == 6:
        return "/v1/rerank", {"query": f"q {number}", "documents": ["a", "b"]}, 200
    if kind == 7:
        return "/v1/embeddings", {"input": [{"image": picture(number)}]}, 200
    if kind == 8:
        return "/v1/embeddings", {"input": [{"image": picture(number % 50), "text": "same"}]}, 200
    return "/v1/embeddings", {"input": [{"image": "data:image/png;base64,AAAA"}]}, 415


def drive(url: str, numbers: range) -> None:
    limits = httpx.Limits(max_connections=CLIENTS)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(number: int) -> None:
            path, body, wanted = request(number)
            answer = client.post(path, json=body)
            assert answer.status_code == wanted, answer.text

        list(pool.map(ask, numbers))


def resident(pid: int) -> dict[str, int]:
    """Bytes each process of the family holds on its own (shared pixels are a fixed block)."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {f"{each.name()}-{each.pid}": each.memory_full_info().uss for each in family}


def test_memory_is_flat(pair: Pair, tmp_path: Path) -> None:
    # Decoded media stay in the shared block by design: make it small enough to be full early.
    with start_server(pair, tmp_path / "log", "--media-memory", str(16 << 20)) as server:
        drive(server.url, range(WARM))
        before = resident(server.process.pid)
        drive(server.url, range(WARM, FULL))
        after = resident(server.process.pid)
        assert before.keys() == after.keys()
        growth = sum(after.values()) / sum(before.values())
        assert growth <= MOST, {name: (before[name] >> 20, after[name] >> 20) for name in before}
