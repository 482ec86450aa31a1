"""Which pages of other origins may read the answers: none, unless they were named.

Around the edge, since a browser sends no key with its question beforehand, and hides from its page every
answer without the header, a 401 or a 429 as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_TOLD = ("retry-after", "x-request-id")


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app for pages of these origins too; cookies are not among what it reads."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # SDKs send a dozen of their own
        expose_headers=_TOLD,
    )
