"""What SIGHUP reads again: keys, and the certificate, each for itself. Where one cannot be used, what was
read before stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from qvl.engine import tls
from qvl.engine.api.auth import load_keys
from qvl.engine.api.edge import Edge
from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError

_log = logging.getLogger("qvl.server")


def read_again(edge: Edge, http: uvicorn.Config, config: ServerConfig) -> None:
    """For requests and connections from now on; a key's rate begins anew."""
    if config.api_key_file:
        with _told("API keys"):
            edge.keys = load_keys(config)
    if http.loaded and http.ssl:
        with _told("certificate"):
            tls.renew(http.ssl, config)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        _log.error("SIGHUP: %s; kept the old %s", error, what)
    else:
        _log.info("SIGHUP: %s read again", what)
