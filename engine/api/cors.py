"""Which pages of other origins may read the answers: none, unless they were named.

Around the edge, since a browser sends no key with its question beforehand, and hides from its page every
answer without the header, a 401 or a 429 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from litestar.types import ASGIApp
from starlette.middleware.cors import CORSMiddleware

_ASKED = ("authorization", "content-type", "traceparent", "x-request-id")
_TOLD = ("retry-after", "x-request-id")


def shared(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app for pages of these origins too; cookies are not among what it reads."""
    made = CORSMiddleware(
        app,  # type: ignore[arg-type]
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=_ASKED,
        expose_headers=_TOLD,
    )
    return cast(ASGIApp, made)
