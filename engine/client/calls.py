"""Every verb of the API, once: which requests it takes and what their replies amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from qvl.engine.client import wire
from qvl.engine.client.items import Item, is_one_item
from qvl.engine.client.retry import Policy
from qvl.engine.client.wire import Part, Reply
from qvl.engine.protocol import EmbedResult, ModelCard, OnError, RerankResult

T = TypeVar("T")
U = TypeVar("U")

Items: TypeAlias = "Iterable[Item] | Item"
Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """Requests still to be sent, built as they are asked for, and what to make of the replies."""

    parts: Iterator[Part]
    finish: Callable[[Sequence[Reply]], T]

    def then(self, step: Callable[[T], U]) -> Call[U]:
        return Call(self.parts, lambda replies: step(self.finish(replies)))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document by its place in the list that was given."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """An item of the server's index. `score` is the reranker's; None where it did not judge the item."""

    id: str
    similarity: float
    score: float | None
    document: dict[str, Any]
    metadata: dict[str, Any]


def embed(
    policy: Policy,
    items: Items,
    *,
    instruction: str | None = None,
    dimensions: int | None = None,
    model: str | None = None,
) -> Call[Vectors]:
    """L2-normalised vectors, float32, one row an item in the order given."""
    call = embed_result(policy, items, instruction=instruction, dimensions=dimensions, model=model)
    return call.then(lambda result: result.vectors)


def embed_result(
    policy: Policy,
    items: Items,
    *,
    instruction: str | None = None,
    dimensions: int | None = None,
    model: str | None = None,
    on_error: OnError = "fail",
) -> Call[EmbedResult]:
    """As `embed`, with the usage, and with `on_error="skip"` the errors of single items."""
    options = {"instruction": instruction, "dimensions": dimensions, "model": model, "on_error": on_error}
    parts = wire.embed_parts(_listed(items), options, policy)
    return Call(parts, lambda replies: wire.embeddings(replies, dimensions))


def rerank(
    policy: Policy,
    query: Item,
    documents: Items,
    *,
    instruction: str | None = None,
    top_n: int | None = None,
    raw_scores: bool = False,
    model: str | None = None,
) -> Call[list[Ranked]]:
    """The best `top_n` documents by falling score in (0, 1); `raw_scores` gives logits in their place."""
    call = rerank_result(policy, query, documents, instruction=instruction, model=model)
    return call.then(lambda result: ranking(result, top_n, raw_scores))


def rerank_result(
    policy: Policy,
    query: Item,
    documents: Items,
    *,
    instruction: str | None = None,
    model: str | None = None,
    on_error: OnError = "fail",
) -> Call[RerankResult]:
    """Logits and scores in document order, the usage, and with `on_error="skip"` the documents' errors."""
    options = {"instruction": instruction, "model": model, "on_error": on_error}
    return Call(wire.rerank_parts(query, _listed(documents), options, policy), wire.scores)


def search(
    policy: Policy,
    query: Item,
    *,
    top_n: int = 10,
    recall: int = 100,
    filter: dict[str, Any] | None = None,
    rerank: bool | None = None,
    instruction: str | None = None,
) -> Call[list[Found]]:
    """The best items of the server's index: reranked when it serves a reranker, unless `rerank` is False."""
    body = {"query": query, "top_n": top_n, "recall": recall, "filter": filter, "rerank": rerank}
    return search_reply(policy, body | {"instruction": instruction}).then(
        lambda reply: [
            Found(
                each["id"],
                each["similarity"],
                each.get("relevance_score"),
                each.get("document", {}),
                each["metadata"],
            )
            for each in reply["results"]
        ]
    )


def search_reply(policy: Policy, body: dict[str, Any]) -> Call[dict[str, Any]]:
    """The server's whole answer to a body of `/v1/search`, whose query may be any item."""
    del policy
    return Call(iter([wire.search_part(body)]), wire.search_reply)


def post(policy: Policy, path: str, body: bytes) -> Call[bytes]:
    """What a route answers, as it came."""
    del policy
    return Call(iter([Part(path, body, 0, 0)]), lambda replies: replies[0].body)


def models(policy: Policy) -> Call[list[ModelCard]]:
    """The models that the server answers for."""
    del policy
    return Call(iter([Part("/v1/models", None, 0, 0)]), wire.model_cards)


def ranking(result: RerankResult, top_n: int | None = None, raw_scores: bool = False) -> list[Ranked]:
    """Best first, ties in document order; documents that failed are left out."""
    values = (result.logits if raw_scores else result.scores).tolist()
    return [Ranked(index, values[index]) for index in result.order(top_n)]


def _listed(items: Items) -> Iterable[Item]:
    # A string is iterable too; taken as a list it would embed its letters.
    return [items] if is_one_item(items) else cast("Iterable[Item]", items)
