"""Hugging Face's text-embeddings-inference: `/embed`, `/similarity`, and its answer of `/rerank`.

`huggingface_hub.InferenceClient` and what builds on it post the bodies of the first two to `/`.
`prompt_name` is an instruction, as `tasks` has it, for both sides of a similarity. Answers are bare lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import inputs, items, openai, ranking, tasks, vectors
from qvl.engine.dialects.fields import Body, Count, Truncate, convert, cuts, refuse
from qvl.engine.dialects.items import Item
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankResult, Tokens

Direction: TypeAlias = Literal["right", "Right", "left", "Left"]
Compared: TypeAlias = Annotated[list[str], msgspec.Meta(min_length=1)]
EmbedResponse: TypeAlias = list[vectors.Vector]
SimilarityResponse: TypeAlias = list[float]
"""The cosine of each of `sentences` and the `source_sentence`."""


class Sentences(Body):
    source_sentence: str
    sentences: Compared


class Either(Item):
    """An item, or `Sentences` to compare: a request has one URL for both."""

    source_sentence: str | None = None
    sentences: Compared | None = None


class Parameters(Body):
    truncate: Truncate | None = None
    truncation_direction: Direction | None = None
    prompt_name: tasks.Task | None = None

    def request(self, given: tuple[Content | Tokens, ...], model: str | None) -> EmbedRequest:
        cut_right(self.truncation_direction)
        return EmbedRequest(
            input=given,
            model=model,
            instruction=tasks.instruction(None, prompt_name=self.prompt_name),
            documents=tasks.documents(prompt_name=self.prompt_name),
            truncate=cuts(self.truncate),
        )


class SimilarityBody(Body):
    inputs: Sentences
    model: str | None = None
    parameters: Parameters | None = None


Inputs: TypeAlias = (
    str | Either | Annotated[list[str | inputs.TokenId | inputs.TokenIds | Item], msgspec.Meta(min_length=1)]
)


class EmbedBody(Parameters, kw_only=True):
    inputs: Inputs
    model: str | None = None
    normalize: bool | None = None
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
    asked = _compared(body.inputs)
    given = inputs.entries(body.inputs, "inputs") if asked is None else _sides(asked)
    return replace(body.request(given, body.model), dimensions=body.dimensions)


def render_embed(
    body: EmbedBody, result: EmbedResult, encode: vectors.Encode
) -> EmbedResponse | SimilarityResponse:
    return encode(vectors.Kind()) if _compared(body.inputs) is None else _cosines(result)


def parse_similarity(body: SimilarityBody) -> EmbedRequest:
    return (body.parameters or Parameters()).request(_sides(body.inputs), body.model)


def render_similarity(
    body: SimilarityBody, result: EmbedResult, encode: vectors.Encode
) -> SimilarityResponse:
    return _cosines(result)


def _compared(value: Inputs) -> Sentences | None:
    """What is to be compared, if it is not to be embedded."""
    if not isinstance(value, Either) or (value.source_sentence is None and value.sentences is None):
        return None
    given = {name: each for name, each in msgspec.structs.asdict(value).items() if each is not None}
    return convert(Sentences, given, "inputs")


def _sides(asked: Sentences) -> tuple[Content, ...]:
    source = items.content(asked.source_sentence, "inputs.source_sentence")
    return (source, *items.contents(asked.sentences, "inputs.sentences"))


def _cosines(result: EmbedResult) -> SimilarityResponse:
    cosines: SimilarityResponse = (result.vectors[1:] @ result.vectors[0]).clip(-1, 1).tolist()
    return cosines


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
