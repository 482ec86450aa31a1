"""Hugging Face's text-embeddings-inference: `POST /embed`, and its answer of `POST /rerank`.

`huggingface_hub.InferenceClient` and what builds on it post `/embed`'s body to `/`. `prompt_name` is an
instruction, as `tasks` has it. Answers are bare lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from qvl.engine.dialects import openai, ranking, tasks, vectors
from qvl.engine.dialects.fields import Body, Count, Truncate, cuts, refuse
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankResult

Direction: TypeAlias = Literal["right", "Right", "left", "Left"]
EmbedResponse: TypeAlias = list[vectors.Vector]


class EmbedBody(Body):
    inputs: openai.Input
    model: str | None = None
    normalize: bool | None = None
    truncate: Truncate | None = None
    truncation_direction: Direction | None = None
    prompt_name: tasks.Task | None = None
    dimensions: Count | None = None
    options: dict[str, Any] | None = None
    """No effect: Weaviate's, what the Hub's own servers do while a model loads."""
    parameters: openai.Nothing | None = None


class Ranked(TypedDict):
    index: int
    score: NotRequired[float]
    text: NotRequired[str]
    error: NotRequired[dict[str, str | None]]


RerankResponse: TypeAlias = list[Ranked]


def cut_right(direction: Direction | None) -> None:
    """Refuse the other direction."""
    refuse(
        direction in ("left", "Left"),
        "truncation_direction",
        "this model cuts the end, as in its training; use right",
    )


def parse_embed(body: EmbedBody) -> EmbedRequest:
    openai.unit_length(normalize=body.normalize)
    cut_right(body.truncation_direction)
    return EmbedRequest(
        input=openai.entries(body.inputs, "inputs"),
        model=body.model,
        instruction=tasks.instruction(None, prompt_name=body.prompt_name),
        documents=tasks.documents(prompt_name=body.prompt_name),
        dimensions=body.dimensions,
        truncate=cuts(body.truncate),
    )


def render_embed(body: EmbedBody, result: EmbedResult, encode: vectors.Encode) -> EmbedResponse:
    return encode(vectors.Kind())


def render_rerank(
    result: RerankResult, *, top_n: int | None, raw: bool, echo: Sequence[Content] | None
) -> RerankResponse:
    """`echo`: the documents, of which the texts are shown."""
    answer: RerankResponse = []
    for entry in ranking.ranked(result, top_n=top_n, raw=raw):
        shown: Ranked = {"index": entry["index"], "score": entry["relevance_score"]}
        if echo is not None:
            shown["text"] = "".join(echo[entry["index"]].texts)
        answer.append(shown)
    answer += [{"index": entry["index"], "error": entry["error"]} for entry in ranking.failed(result)]
    return answer
