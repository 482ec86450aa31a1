"""The server's certificate: uvicorn reads it, but says what is wrong with it in a traceback, and late."""

from __future__ import annotations

import ssl

from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError


def scheme(config: ServerConfig) -> str:
    return "https" if config.tls_cert else "http"


def check(config: ServerConfig) -> None:
    """Raises ConfigError, one line, unless the files are a certificate and its key."""
    if not config.tls_cert:
        return
    files = ", ".join(filter(None, (config.tls_cert, config.tls_key)))
    try:
        # Without a password at hand OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.tls_cert, config.tls_key, password=lambda: b""
        )
    except ssl.SSLError as error:
        raise ConfigError(f"no certificate with its unencrypted key in {files}: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {files}: {error.strerror}") from None
