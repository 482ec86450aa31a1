"""The server's certificate: uvicorn reads it, but says what is wrong with it in a traceback, and late."""

from __future__ import annotations

import ssl

from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError


def scheme(config: ServerConfig) -> str:
    return "https" if config.tls_cert else "http"


def check(config: ServerConfig) -> None:
    """Raises ConfigError, one line, unless the files are a certificate and its key."""
    if config.tls_cert:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config.tls_cert, config.tls_key)


def renew(live: ssl.SSLContext, config: ServerConfig) -> None:
    """Connections from now on get what the files hold now. Raises ConfigError, and all stays as it was."""
    check(config)  # OpenSSL would drop the old key before it looks at a new one that does not fit
    if config.tls_cert:
        _load(live, config.tls_cert, config.tls_key)


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    files = ", ".join(filter(None, (cert, key)))
    try:
        # Without a password at hand OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError(f"no certificate with its unencrypted key in {files}: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {files}: {error.strerror}") from None
