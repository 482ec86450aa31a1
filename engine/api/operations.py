"""The POST routes: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from qvl.engine.api.answering import Answer, embed, find, rank, score, tokenise
from qvl.engine.dialects import cohere, dashscope, nvidia, openai, rerank, search, tei, tokenize, vllm, voyage
from qvl.engine.dialects.fields import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    paths: tuple[str, ...]
    summary: str
    body: type[Body]
    response: Any
    """A type, or a tuple of those between which the body chooses."""
    answer: Answer
    example: dict[str, object]


OPERATIONS = (
    Operation(
        paths=("/v1/embeddings", "/embeddings", "/images/embeddings"),
        summary="Embed texts, images, videos or mixtures (OpenAI's, vLLM's, Jina's, Voyage's, Azure's)",
        body=openai.EmbeddingsBody,
        response=openai.EmbeddingsResponse,
        answer=embed(openai.EmbeddingsBody, openai.parse, openai.render),
        example={"input": ["a red bicycle", {"image": "https://example.com/bicycle.jpg"}]},
    ),
    Operation(
        paths=("/v1/rerank", "/v1/reranks", "/compatible-api/v1/reranks"),
        summary="Order documents by relevance to a query (Jina's, vLLM's, Voyage's or Cohere v1's shape)",
        body=rerank.RerankBody,
        response=(rerank.RerankResponse, voyage.RerankResponse, tei.RerankResponse),
        answer=rank(rerank.RerankBody, rerank.parse, rerank.render),
        example={
            "query": "a red bicycle",
            "documents": ["a bike", {"image": "https://example.com/b.jpg"}],
            "top_n": 1,
        },
    ),
    Operation(
        paths=("/v2/embed",),
        summary="Embed texts, images or mixtures (Cohere v2's shape)",
        body=cohere.EmbedBody,
        response=cohere.EmbedResponse,
        answer=embed(cohere.EmbedBody, cohere.parse_embed, cohere.render_embed),
        example={
            "texts": ["a red bicycle"],
            "input_type": "search_query",
            "embedding_types": ["float", "int8"],
        },
    ),
    Operation(
        paths=("/v1/embed",),
        summary="Embed texts or images (Cohere v1's shape)",
        body=cohere.EmbedBody,
        response=(cohere.FloatsResponse, cohere.EmbedResponse),
        answer=embed(cohere.EmbedBody, cohere.parse_embed, cohere.render_embed_v1),
        example={"texts": ["a red bicycle"], "input_type": "search_query"},
    ),
    Operation(
        paths=("/v2/rerank",),
        summary="The same (Cohere v2's shape)",
        body=rerank.RerankBody,
        response=(rerank.RerankResponse, voyage.RerankResponse, tei.RerankResponse),
        answer=rank(rerank.RerankBody, rerank.parse, partial(rerank.render, version="2")),
        example={"query": "a red bicycle", "documents": ["a bike", "a car"], "top_n": 1},
    ),
    Operation(
        paths=("/rerank",),
        summary="The same, with the documents (vLLM's or TEI's shape)",
        body=rerank.RerankBody,
        response=(rerank.RerankResponse, voyage.RerankResponse, tei.RerankResponse),
        answer=rank(rerank.RerankBody, rerank.parse, partial(rerank.render, echoes=True)),
        example={"query": "a red bicycle", "documents": ["a bike", "a car"]},
    ),
    Operation(
        paths=("/embed", "/"),
        summary="Embed texts or mixtures, or compare texts (TEI's shapes)",
        body=tei.EmbedBody,
        response=(tei.EmbedResponse, tei.SimilarityResponse),
        answer=embed(tei.EmbedBody, tei.parse_embed, tei.render_embed),
        example={"inputs": ["a red bicycle"], "prompt_name": "query"},
    ),
    Operation(
        paths=("/similarity",),
        summary="The cosines of texts and one other text (TEI's shape)",
        body=tei.SimilarityBody,
        response=tei.SimilarityResponse,
        answer=embed(tei.SimilarityBody, tei.parse_similarity, tei.render_similarity),
        example={"inputs": {"source_sentence": "a red bicycle", "sentences": ["a bike", "a car"]}},
    ),
    Operation(
        paths=("/score", "/v1/score"),
        summary="Score one query with N documents, or N pairs (vLLM's shape)",
        body=vllm.ScoreBody,
        response=vllm.ScoreResponse,
        answer=score(vllm.ScoreBody, vllm.parse_score, vllm.render_score),
        example={"queries": "a red bicycle", "documents": ["a bike", "a car"]},
    ),
    Operation(
        paths=("/v1/multimodalembeddings",),
        summary="Embed mixtures of texts, images and videos (Voyage's shape)",
        body=voyage.EmbedBody,
        response=voyage.EmbedResponse,
        answer=embed(voyage.EmbedBody, voyage.parse, voyage.render),
        example={"inputs": [{"content": [{"type": "text", "text": "a red bicycle"}]}]},
    ),
    Operation(
        paths=("/v1/ranking", "/v1/retrieval/nvidia/reranking"),
        summary="Order passages by relevance to a query (NVIDIA's shape)",
        body=nvidia.RankingBody,
        response=nvidia.RankingResponse,
        answer=rank(nvidia.RankingBody, nvidia.parse, nvidia.render),
        example={"query": {"text": "a red bicycle"}, "passages": [{"text": "a bike"}, {"text": "a car"}]},
    ),
    Operation(
        paths=("/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding",),
        summary="Embed texts, images, videos or mixtures (DashScope's shape)",
        body=dashscope.EmbedBody,
        response=dashscope.EmbedResponse,
        answer=embed(dashscope.EmbedBody, dashscope.parse_embed, dashscope.render_embed),
        example={
            "input": {"contents": [{"text": "a red bicycle"}, {"image": "https://example.com/bicycle.jpg"}]},
            "parameters": {"enable_fusion": True},
        },
    ),
    Operation(
        paths=("/api/v1/services/rerank/text-rerank/text-rerank",),
        summary="Order documents by relevance to a query (DashScope's shape)",
        body=dashscope.RerankBody,
        response=dashscope.RerankResponse,
        answer=rank(dashscope.RerankBody, dashscope.parse_rerank, dashscope.render_rerank),
        example={
            "input": {"query": "a red bicycle", "documents": ["a bike", {"text": "a car"}]},
            "parameters": {"top_n": 1},
        },
    ),
    Operation(
        paths=("/tokenize",),
        summary="The tokens of texts (TEI's shape), or their ids and number (vLLM's)",
        body=tokenize.TokenizeBody,
        response=(tokenize.TokenizeResponse, tokenize.CountResponse),
        answer=tokenise,
        example={"inputs": ["a red bicycle"], "add_special_tokens": False},
    ),
    Operation(
        paths=("/v1/search",),
        summary="Recall from the server's index by the query's vector, then rerank",
        body=search.SearchBody,
        response=search.SearchResponse,
        answer=find,
        example={"query": "a red bicycle", "top_n": 3, "filter": {"year": {"gte": 2020}}},
    ),
)
