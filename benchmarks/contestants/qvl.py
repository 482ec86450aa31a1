"""`qvl serve` with no flags but the model, the type and its share of the machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.asks import Ask, Embed, Item
from benchmarks.contestants.base import Answer, Site, ranked, url, vectors
from benchmarks.load import Shot


@dataclass(frozen=True, slots=True)
class Qvl:
    replicas: int = 1
    health: str = "/health/ready"

    @property
    def name(self) -> str:
        return "qvl" if self.replicas == 1 else f"qvl-{self.replicas}-replicas"

    def command(self, site: Site, port: int) -> Sequence[str]:
        command = [sys.executable, "-m", "qvl.engine.cli", "serve", f"--{site.role}", str(site.folder)]
        command += ["--port", str(port), "--dtype", site.dtype, "--log-level", "warning"]
        if site.quantization:
            command += ["--quantization", site.quantization, "--quantize-vision"]  # as stock does
        if self.replicas > 1:
            command += ["--replicas", str(self.replicas)]
        if site.gpu:
            command += [f"--{site.role}-memory", str(site.gpu_share)]
        return command

    def shot(self, site: Site, ask: Ask) -> Shot:
        if isinstance(ask, Embed):
            body = {"input": [_item(item) for item in ask.items], "encoding_format": "base64"}
            return Shot("/v1/embeddings", orjson.dumps(body), ask.count)
        reranking = {"query": _item(ask.query), "documents": [_item(item) for item in ask.documents]}
        return Shot("/v1/rerank", orjson.dumps(reranking), ask.count)

    def answer(self, body: bytes) -> Answer:
        reply = orjson.loads(body)
        return vectors(reply) if "data" in reply else ranked(reply)


def _item(item: Item) -> Any:
    if item.text is not None:
        return item.text
    if item.image is not None:
        return {"image": url(item.image)}
    return {"video": [url(frame) for frame in item.frames]}
