"""Ports for the servers that tests start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Nobody else is given it while this process lives: what is to listen on it may take seconds to start."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who asks for it by its number may have it
    held.bind(("127.0.0.1", 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port
