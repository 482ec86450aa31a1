"""`POST /v1/rerank`, `/v2/rerank` and `/rerank`: vLLM's, Jina's and Cohere's, whose answers share one object.

Voyage's `top_k`, which its client always sends, be it null, asks for Voyage's answer; `texts`, as TEI calls
the documents, for TEI's.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import items, ranking, records, tei, vllm, voyage
from qvl.engine.dialects.fields import Count, agreed, one_of, refuse
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.protocol import RerankRequest, RerankResult

Flag: TypeAlias = bool | Literal["true", "false"]
"""Xinference's clients write words."""


class RerankBody(vllm.Scoring, kw_only=True):
    query: items.Query
    documents: records.Records | None = None
    texts: ranking.Documents | None = None
    top_n: vllm.OrAll | None = None
    """0: all."""
    top_k: Count | msgspec.UnsetType | None = msgspec.UNSET
    return_documents: Flag | None = None
    """Default false; of `/rerank` true, as in vLLM."""
    return_text: bool | None = None
    """Of `texts`; default false, as in TEI."""
    truncation_direction: tei.Direction | None = None
    return_len: Flag | None = None
    """No effect: the tokens are always counted."""
    rank_fields: records.RankFields = None
    max_doc_length: Count | None = None
    """Jina's `max_tokens_per_doc`."""
    max_query_length: Count | None = None
    return_embeddings: bool | None = None
    max_chunks_per_doc: Count | None = None
    """No effect: a document is never cut into chunks."""
    max_chunk_per_doc: Count | None = None
    """new-api's `max_chunks_per_doc`."""
    overlap_tokens: vllm.OrAll | None = None
    """SiliconFlow's, of such chunks: no effect."""
    kwargs: Literal["{}"] | None = None
    """Xinference's client always says it."""


class ApiVersion(TypedDict):
    version: str


class BilledUnits(TypedDict):
    search_units: int


class Tokens(TypedDict):
    input_tokens: int
    output_tokens: int


class Meta(TypedDict):
    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens


class RerankResponse(TypedDict):
    id: str
    object: NotRequired[Literal["list"]]
    model: str
    results: list[ranking.Ranked]
    usage: Usage
    meta: Meta


def parse(body: RerankBody) -> RerankRequest:
    _most(body)
    tei.cut_right(body.truncation_direction)
    refuse(body.return_embeddings, "return_embeddings", "a reranker has no vectors; /v1/embeddings has them")
    refuse(body.max_query_length, "max_query_length", vllm.NEVER_CUT)
    one_of({"documents": body.documents, "texts": body.texts})
    if body.documents is not None:
        documents = records.documents(body.documents, body.rank_fields)
    else:
        assert body.texts is not None
        refuse(body.rank_fields, "rank_fields", "it is of documents that are records")
        documents = ranking.documents(body.texts, "texts")
    lengths = {"max_tokens_per_doc": body.max_tokens_per_doc or None, "max_doc_length": body.max_doc_length}
    request = body.request(items.content(body.query, "query"), documents)
    return replace(request, max_tokens_per_document=agreed(lengths))


def render(
    body: RerankBody,
    request: RerankRequest,
    result: RerankResult,
    *,
    echoes: bool = False,
    version: str = "1",
) -> RerankResponse | voyage.RerankResponse | tei.RerankResponse:
    """`echoes`: documents come along unless the body says otherwise. `version`: of Cohere's API."""
    if body.texts is not None:
        shown = request.documents if body.return_text else None
        return tei.render_rerank(result, top_n=_most(body), raw=body.raw(), echo=shown)
    wanted = (True, "true", None) if echoes else (True, "true")
    echo = request.documents if body.return_documents in wanted else None
    if body.top_k is not msgspec.UNSET:
        return voyage.render_rerank(result, top_k=_most(body), raw=body.raw(), echo=echo)
    best = ranking.ranked(result, top_n=_most(body), raw=body.raw(), echo=echo)
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": result.model,
        "results": [*best, *ranking.failed(result)],
        "usage": usage(result.usage),
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": ranking.search_units(request)},
            "tokens": {"input_tokens": result.usage.total_tokens, "output_tokens": 0},
        },
    }


def _most(body: RerankBody) -> int | None:
    """How many to answer with; None: all."""
    top_k = body.top_k if isinstance(body.top_k, int) else None
    return agreed({"top_n": body.top_n, "top_k": top_k}) or None
