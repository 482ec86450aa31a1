"""Which addresses are public."""

from __future__ import annotations

import pytest

from qvl.engine.media.address import AllowedHosts, is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82a::200e",
]

REFUSED = {
    "loopback": ["127.0.0.1", "127.8.8.8", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0", "febf::1"],
    "metadata": ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
                 "192.0.0.192"],
    "carrier NAT": ["100.64.0.1", "100.127.255.255"],
    "unspecified": ["0.0.0.0", "::", "0.1.2.3"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "broadcast and reserved": ["255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9",
                               "192.88.99.1", "2001:db8::1", "100::1"],
    "IPv4 within IPv6": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
                         "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1",
                         "2002:7f00:1::", "2002:a00:1::1", "2001:0:53aa:64c::1"],
    "site-local": ["fec0::1"],
    "no address": ["", "localhost", "2130706433", "0x7f.1", "1.1.1", "1.1.1.1.1", "[::1]"],
}  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", [address for group in REFUSED.values() for address in group])
def test_refused(address):
    assert not is_public(address)


def test_allowed_hosts():
    hosts = AllowedHosts(("Images.Internal", "10.0.0.7:8000", "[::1]:9000", "fd00::5"))
    assert ("images.internal", 80) in hosts and ("IMAGES.internal.", 8443) in hosts
    assert ("10.0.0.7", 8000) in hosts and ("10.0.0.7", 8001) not in hosts
    assert ("::1", 9000) in hosts and ("::1", 80) not in hosts
    assert ("fd00::5", 80) in hosts
    assert ("other.internal", 80) not in hosts and ("evil-images.internal", 80) not in hosts
