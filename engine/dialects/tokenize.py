"""`POST /tokenize`, TEI's and vLLM's: what a text is to the tokenizer, for those who count or cut.

`inputs` and `prompt` are taken bare, without the template around them: a control token in a text is itself.
`messages` is a conversation with its template, as the embedder reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import messages
from qvl.engine.dialects.fields import Body, one_of, refuse
from qvl.engine.errors import TooLarge
from qvl.engine.protocol import Content, EmbedRequest, Token

MOST_BYTES = 1 << 18
"""Of the texts of one request: a token of each byte, at worst, takes some 500 while it is answered."""

Texts: TypeAlias = str | Annotated[list[str], msgspec.Meta(min_length=1)]


class TokenizeBody(Body):
    inputs: Texts | None = None
    """TEI's."""
    prompt: str | None = None
    messages: Annotated[list[messages.Message], msgspec.Meta(min_length=1)] | None = None
    model: str | None = None
    add_special_tokens: bool | None = None
    """Default true: with those that the tokenizer puts behind every text. A conversation has them always."""
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: None = None


class SimpleToken(TypedDict):
    """`text` is that from character `start` to `stop`, or the name of a token that the tokenizer added."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


TokenizeResponse: TypeAlias = list[list[SimpleToken]]


class CountResponse(TypedDict):
    """vLLM's."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


def parse(body: TokenizeBody) -> tuple[EmbedRequest, bool | None]:
    """Also whether with the tokenizer's own tokens; None: the items' whole prompts."""
    name = one_of({"inputs": body.inputs, "prompt": body.prompt, "messages": body.messages})
    special = body.add_special_tokens is not False
    given: tuple[Content, ...]
    if name == "messages":
        given = messages.conversations(body.messages or ())
        refuse(given[0].images or given[0].videos, "messages", "what media become depends on their pixels")
    else:
        given = tuple(Content(texts=(text,), where=name) for text in _texts(body))
    texts = (text for each in given for text in (*each.texts, each.instruction or ""))
    size = sum(len(text.encode()) for text in texts)
    if size > MOST_BYTES:
        raise TooLarge(
            f"{size:,} bytes of text to tokenise; at most {MOST_BYTES:,}: send several requests",
            param=name,
            code="too_much_text",
        )
    return EmbedRequest(input=given, model=body.model), None if name == "messages" else special


def render(
    body: TokenizeBody, found: Sequence[Sequence[Token]], max_length: int
) -> TokenizeResponse | CountResponse:
    if body.inputs is None:
        (tokens,) = found
        return {
            "count": len(tokens),
            "max_model_len": max_length,
            "tokens": [each.id for each in tokens],
            "token_strs": [each.piece for each in tokens] if body.return_token_strs else None,
        }
    return [
        [_simple(token, text) for token in tokens] for tokens, text in zip(found, _texts(body), strict=True)
    ]


def _texts(body: TokenizeBody) -> list[str]:
    given: Any = body.inputs if body.prompt is None else body.prompt
    return [given] if isinstance(given, str) else given


def _simple(token: Token, text: str) -> SimpleToken:
    if token.special:
        return {"id": token.id, "text": token.piece, "special": True, "start": None, "stop": None}
    start, stop = token.start, token.stop
    return {"id": token.id, "text": text[start:stop], "special": False, "start": start, "stop": stop}
