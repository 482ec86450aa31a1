"""The HTTP side of one replica: `create_app(service, config)` is an ASGI app over anything that embeds."""

from qvl.engine.api.app import create_app
from qvl.engine.api.service import Service

__all__ = ["Service", "create_app"]
