"""Which pages of other origins may read the answers: none, unless they were named.

Around the edge, since a browser sends no key with its question beforehand, and hides from its page every
answer without the header, a 401 or a 429 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from litestar.types import ASGIApp
from starlette.middleware.cors import CORSMiddleware

_TOLD = ("retry-after", "x-request-id")


def shared(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app for pages of these origins too; cookies are not among what it reads."""
    if not origins:
        return app
    made = CORSMiddleware(
        app,  # type: ignore[arg-type]  # Litestar's ASGI types and Starlette's differ in name
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # SDKs send a dozen of their own
        expose_headers=_TOLD,
    )
    return cast(ASGIApp, made)
