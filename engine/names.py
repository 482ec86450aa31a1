"""`NAME:query`: the model NAME, asked with queries. For clients that can set nothing but a model's name.

It is the task `query` (`dialects/tasks.py`): an instruction of the request, or of an item, wins. So does a
model that is really called so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from qvl.engine.dialects.tasks import QUERY
from qvl.engine.errors import BadRequest, NotFound
from qvl.engine.protocol import EmbedRequest, Tokens

SUFFIX = ":query"


def without_suffix(name: str, known: Collection[str]) -> str | None:
    """The known name that is asked with queries; None: the suffix is not there, or a part of a name."""
    plain = name.removesuffix(SUFFIX)
    return plain if plain != name and name not in known and plain in known else None


def meant(request: EmbedRequest, known: Collection[str]) -> EmbedRequest:
    """The request by a known name. Raises BadRequest where it cannot be one of queries."""
    plain = without_suffix(request.model or "", known)
    if plain is None:
        return request
    if request.documents and request.instruction is None:
        raise BadRequest(
            f"`model` and `{request.documents}` contradict each other: {SUFFIX} asks with queries; keep one",
            param=request.documents,
            code="conflicting_fields",
        )
    if any(isinstance(each, Tokens) for each in request.input):
        raise BadRequest(
            f"`model` ends with {SUFFIX}, which the template says, and token ids are taken without one; "
            "send texts (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
            param="model",
            code="unsupported_field",
        )
    told = QUERY if request.instruction is None else request.instruction
    return replace(request, model=plain, instruction=told)


def unknown(role: str, name: str, served: Collection[str]) -> NotFound:
    """Of these there are only those served."""
    hint = f" ({SUFFIX} is for an embedder's name)" if role == "reranker" and name.endswith(SUFFIX) else ""
    return NotFound(
        f"no {role} {name[:80]!r} is served here{hint}; there is {', '.join(map(repr, served))}",
        param="model",
        code="model_not_found",
    )
