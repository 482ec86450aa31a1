"""What a soak asks for: texts and images, as bodies of requests, and the vectors in their answers."""

from __future__ import annotations

import base64
import io
import random
import re
from typing import Any, TypeAlias

import aiohttp
import numpy as np
import orjson
from PIL import Image

WORDS = 300
"""Of a text: so long that the model, not the load generator beside it, is what is full. At 150
an item took a fifth more of the engine's time under twice the load than at the peak, two models and two
servers on two cores; with real models a request's own cost is smaller still."""

POISON = [
    "data:image/png;base64,iVBORw0KGgo=",
    "data:image/png;base64,????",
    "data:text/plain;base64,aGk=",
    "x",
]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


def item(number: int, rng: random.Random) -> Any:
    if number % 6:
        return f"{number} " + " ".join(
            rng.choice(("red", "boat", "bike", "东京", "page")) for _ in range(WORDS)
        )
    noise = np.random.default_rng(number).integers(0, 255, (64, 64 + 32 * (number % 5), 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return {"image": f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"}


class Asker:
    """A client that costs little beside the server whose cores it takes."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def embed(self, items: list[Any]) -> tuple[int, bytes]:
        body = orjson.dumps({"input": items, "encoding_format": "base64"})
        headers = {"content-type": "application/json"}
        async with self._client.post("/v1/embeddings", data=body, headers=headers) as answer:
            return answer.status, await answer.read()

    async def replicas(self) -> int:
        """How many take requests."""
        async with self._client.get("/metrics") as page:
            text = await page.text()
        ready = re.search(r"^qvl_ready_replicas (\S+)", text, re.MULTILINE)
        return int(float(ready[1])) if ready else 0


def vectors(answer: bytes) -> list[Vector]:
    data = orjson.loads(answer)["data"]
    return [np.frombuffer(base64.b64decode(entry["embedding"]), np.float32) for entry in data]
