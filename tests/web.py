"""`httpx.get` and `httpx.post` with one TLS context for all: for each call httpx makes one, 22 ms of CPU."""

from __future__ import annotations

import ssl
from functools import partial

import httpx

_TLS = ssl.create_default_context()
_SECONDS = 120
"""Of a busy machine; where none are said, httpx takes 5."""

get = partial(httpx.get, verify=_TLS, timeout=_SECONDS)
post = partial(httpx.post, verify=_TLS, timeout=_SECONDS)


def probe(url: str) -> int | None:
    """The status; None: nobody answers."""
    try:
        return get(url, timeout=5).status_code
    except httpx.TransportError:
        return None
