"""Which addresses a fetched URL may lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata service, on a public address
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays
        # IPv6 that carries an IPv4 address, whose own rules it would escape:
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local use
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
)


def is_public(address: str) -> bool:
    """An ordinary unicast address of the Internet: nothing private, nothing special."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback:
        return False
    return not ip.is_link_local and not any(ip in network for network in _REFUSED)


class AllowedHosts:
    """`MediaConfig.allow_hosts`: `host` or `host:port` (`[::1]:8000` for IPv6), any case."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = {_plain(entry) for entry in entries}

    def __contains__(self, place: tuple[str, int]) -> bool:
        host, port = _plain(place[0]), place[1]
        return host in self._entries or f"{host}:{port}" in self._entries


def _plain(name: str) -> str:
    """Without case, brackets or the root's dot, which all name the same host."""
    return name.lower().replace("[", "").replace("]", "").removesuffix(".")
