"""A stand-in engine for what needs no model: shapes, errors, limits, keys, deadlines, stopping.

Vectors depend on the item alone, so a test can tell whose is whose. Some texts steer it:
`!bad` fails that item, `!boom` is a defect, `!busy` is refused, `!slow` never answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from qvl.engine import names
from qvl.engine.admission import CALLER, Admission
from qvl.engine.errors import NotFound, Overloaded, QvlError, Unprocessable
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import (
    Content,
    EmbedRequest,
    EmbedResult,
    Health,
    ModelCard,
    RerankRequest,
    RerankResult,
    Token,
    Tokens,
    Usage,
)

if TYPE_CHECKING:
    from qvl.engine.media import MediaLoader

T = TypeVar("T")
WIDTH = 64
EMBEDDER = "tiny-embedder"
RERANKER = "tiny-reranker"


class FakeEngine:
    def __init__(self, media: MediaLoader | None = None) -> None:
        self.metrics = Metrics()
        self.media = media
        self.ready = Health(ready=True)
        self.requests: list[EmbedRequest | RerankRequest] = []
        self.cancelled = 0
        self.stopped = False
        self.admission = Admission(sys.maxsize)
        self.death: asyncio.Future[str] | None = None

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        request = names.meant(request, [EMBEDDER])
        self._check(request.model, EMBEDDER)
        self.requests.append(request)
        errors = await self._steer(request.input, request.on_error)
        rows = np.stack([vector(item, request.instruction) for item in request.input])[
            :, : request.dimensions or WIDTH
        ]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[list(errors)] = 0
        cost = Usage(text_tokens=3 * len(rows), visual_tokens=4, images=1, image_pixels=1024)
        self.metrics.usage("embedder", len(rows), cost, CALLER.get())
        return EmbedResult(model=EMBEDDER, vectors=rows, usage=cost, errors=errors)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        self._check(request.model, RERANKER)
        self.requests.append(request)
        await self._steer((request.query,), "fail")
        errors = await self._steer(request.documents, request.on_error)
        query = set("".join(request.query.texts).split())
        overlap = [len(query & set("".join(each.texts).split())) for each in request.documents]
        logits = np.array(overlap, np.float32) - 1
        logits[list(errors)] = -np.inf
        return RerankResult(model=RERANKER, logits=logits, usage=Usage(text_tokens=7), errors=errors)

    async def score(self, requests: tuple[RerankRequest, ...]) -> list[RerankResult]:
        return [await self.rerank(request) for request in requests]

    async def tokenize(self, request: EmbedRequest, special: bool | None) -> tuple[list[list[Token]], int]:
        """A token a word, and one that the tokenizer adds."""
        self._check(request.model, EMBEDDER)
        self.requests.append(request)
        await self._steer(request.input, "fail")
        items = [item for item in request.input if isinstance(item, Content)]
        return [tokens("".join(item.texts), special) for item in items], 8192

    async def whole(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    @property
    def held(self) -> int:
        return self.admission.held

    async def health(self) -> Health:
        return self.ready

    def models(self) -> list[ModelCard]:
        card = partial(ModelCard, dimensions=WIDTH, dtype="float32")
        return [
            card(id=EMBEDDER, role="embedder", max_length=8192, also=("pair", f"org/{EMBEDDER}")),
            card(id=RERANKER, role="reranker", max_length=10240, also=("pair", f"org/{RERANKER}")),
        ]

    async def stop(self) -> None:
        self.stopped = True

    async def died(self) -> str:
        self.death = self.death or asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.death)

    def _check(self, asked: str | None, served: str) -> None:
        if asked and asked != served:
            raise NotFound(f"no model {asked!r} here", param="model", code="model_not_found")

    async def _steer(self, items: tuple[Content | Tokens, ...], on_error: str) -> dict[int, QvlError]:
        errors: dict[int, QvlError] = {}
        if self.media is not None:
            contents = [item for item in items if isinstance(item, Content)]
            for i, outcome in enumerate(await self.media.load(contents)):
                if isinstance(outcome, QvlError):
                    errors[i] = outcome
        for i, item in enumerate(items):
            text = "" if isinstance(item, Tokens) else "".join(item.texts)
            if text == "!boom":
                raise RuntimeError("a secret of the inside")
            if text == "!busy":
                raise Overloaded("too much at once", retry_after=2.5)
            if text == "!slow":
                await self._wait()
            if text == "!bad":
                errors[i] = Unprocessable("cannot be read", param=f"{item.where}.image", code="undecodable")
        if errors and on_error == "fail":
            raise next(iter(errors.values()))
        return errors

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def tokens(text: str, special: bool | None) -> list[Token]:
    found = [Token(len(each[0]), each[0], False, *each.span()) for each in re.finditer(r"\S+", text)]
    return found if special is False else [*found, Token(0, "<end>", True, 0, 0)]


def vector(item: Content | Tokens, instruction: str | None = None) -> np.ndarray:
    """A unit vector that depends on the item's content and its instruction, or the request's, alone."""
    shown: object = item.ids if isinstance(item, Tokens) else (item.videos, item.images, item.texts)
    if isinstance(item, Content):
        shown = shown, item.instruction or instruction
    seed = int.from_bytes(hashlib.sha256(repr(shown).encode()).digest()[:4], "little")
    row = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return row / np.linalg.norm(row)
