"""Where a URL may lead: public addresses only, whatever it is spelled like or redirected to."""

from __future__ import annotations

import asyncio
import ssl

import httpcore
import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import ConfigError, QvlError
from qvl.engine.media.address import AllowedHosts
from qvl.engine.media.connect import CheckedBackend
from qvl.engine.media.fetch import Fetcher

PUBLIC_ADDRESS = "93.184.216.34"

FORBIDDEN = [
    "http://127.0.0.1/", "http://127.0.0.1:8080/", "http://127.1/", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.1/", "http://017700000001/", "http://0/", "http://0.0.0.0/",
    "http://localhost/", "http://LOCALHOST/", "http://10.0.0.1/", "http://192.168.0.1/", "http://172.16.5.4/",
    "http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/", "http://168.63.129.16/",
    "http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/", "http://[::1]/", "http://[::]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fe80::1]/", "http://[fd00:ec2::254]/",
    "http://[fec0::1]/", "http://[ff02::1]/", "https://127.0.0.1/", "HTTP://127.0.0.1/",
    "http://127。0。0。1/", "http://93.184.216.34:22/", "http://93.184.216.34:25/",
    "http://user:pass@93.184.216.34/", "http://user@93.184.216.34/", "http://93.184.216.34@127.0.0.1/",
]  # fmt: skip


class TestForbidden:
    @pytest.mark.parametrize("url", FORBIDDEN)
    def test_an_address(self, url, fetch, is_refused):
        error = fetch(url, config=MediaConfig())
        is_refused(error, 422, "url_forbidden")

    @pytest.mark.parametrize(
        "url", ["http://0177.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://[::1/", "http://a:b/"]
    )
    def test_no_url_at_all(self, url, fetch, is_refused):
        is_refused(fetch(url, config=MediaConfig()), 422, "bad_source")

    def test_where_a_redirect_leads(self, server, make_server, fetch, is_refused):
        inside = make_server()
        secret = inside.add("/secret", b"secret")
        config = MediaConfig(allow_hosts=(f"127.0.0.1:{server.port}",))
        for url in (
            secret,
            f"http://localhost:{inside.port}/secret",
            f"http://2130706433:{inside.port}/secret",
        ):
            is_refused(fetch(server.add("/a", status=302, Location=url), config=config), 422, "url_forbidden")
        assert inside.seen == [] and len(server.seen) == 3

    @pytest.mark.parametrize(
        "location",
        ["file:///etc/passwd", "ftp://93.184.216.34/", "gopher://127.0.0.1/", "data:,x", "//127.0.0.1:9/"],
    )
    def test_what_a_redirect_leads_to(self, location, server, fetch):
        config = MediaConfig(allow_hosts=(f"127.0.0.1:{server.port}",))
        error = fetch(server.add("/a", status=302, Location=location), config=config)
        assert error.status == 422 and error.code in ("url_forbidden", "fetch_failed", "bad_source")
        assert len(server.seen) == 1

    def test_a_redirect_to_a_user_name(self, server, fetch, is_refused):
        url = server.add("/a", status=302, Location=f"http://me:secret@127.0.0.1:{server.port}/a")
        is_refused(fetch(url), 422, "url_forbidden", "user name")

    def test_a_name_that_resolves_to_private_addresses(self, fetch, is_refused, names):
        lookup = names({"evil.test": ["10.0.0.1", "127.0.0.1", "::1", "fe80::1%eth0"]})
        is_refused(
            fetch("http://evil.test/", config=MediaConfig(), lookup=lookup), 422, "url_forbidden", "evil.test"
        )

    def test_private_addresses_beside_public_ones_are_not_dialled(self, names):
        lookup = names({"mixed.test": ["127.0.0.1", PUBLIC_ADDRESS, "10.0.0.1"]})
        assert dialled("mixed.test", lookup) == [PUBLIC_ADDRESS]

    def test_a_name_that_resolves_anew_is_asked_once(self, names):
        """DNS rebinding: what was checked is what is dialled, whatever a second look-up would say."""
        lookup = names({"rebind.test": [[PUBLIC_ADDRESS], ["127.0.0.1"]]})
        assert dialled("rebind.test", lookup) == [PUBLIC_ADDRESS]
        assert lookup.asked == ["rebind.test"]
        with pytest.raises(QvlError, match="public address"):
            dialled("rebind.test", lookup)

    def test_a_name_that_resolves_anew_after_a_redirect(self, server, fetch, is_refused, names):
        """First to a host that is allowed, then to itself as a private one."""
        server.add("/", status=302, Location=f"http://rebind.test:{server.port}/again", Connection="close")
        lookup = names({"ok.test": ["127.0.0.1"], "rebind.test": ["127.0.0.1"]})
        config = MediaConfig(allow_hosts=("ok.test",))
        error = fetch(f"http://ok.test:{server.port}/", config=config, lookup=lookup)
        is_refused(error, 422, "url_forbidden", "rebind.test")
        assert lookup.asked == ["ok.test", "rebind.test"] and len(server.seen) == 1

    def test_the_next_address_is_tried(self, server, fetch, names):
        server.add("/", b"here")
        lookup = names({"two.test": ["127.0.0.2", "127.0.0.1"]})
        config = MediaConfig(allow_hosts=("two.test",))
        assert fetch(f"http://two.test:{server.port}/", config=config, lookup=lookup) == b"here"

    def test_allow_hosts_by_port(self, server, make_server, fetch, is_refused):
        other = make_server()
        config = MediaConfig(allow_hosts=(f"127.0.0.1:{server.port}",))
        assert fetch(server.add("/", b"x"), config=config) == b"x"
        is_refused(fetch(other.add("/", b"x"), config=config), 422, "url_forbidden", "--allow-hosts")

    def test_off(self, server, fetch, is_refused):
        config = MediaConfig(url_fetch=False, allow_hosts=("127.0.0.1",))
        is_refused(fetch(server.add("/", b"x"), config=config), 422, "url_forbidden", "--no-url-fetch")
        assert server.seen == []

    def test_the_address_found_is_not_told(self, fetch, names):
        lookup = names({"inner.test": ["10.11.12.13"]})
        error = fetch("http://inner.test/", config=MediaConfig(), lookup=lookup)
        assert "10.11.12.13" not in error.message


class TestTls:
    @pytest.fixture
    def trusting(self, certificate):
        return ssl.create_default_context(cafile=certificate)

    @pytest.fixture
    def secure(self, make_server, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = make_server(context)
        server.add("/", b"here")
        return server

    def test_the_host_name_is_verified(self, secure, trusting, fetch, is_refused, names):
        lookup = names({"qvl.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
        config = MediaConfig(allow_hosts=("qvl.test", "other.test"))
        good = fetch(f"https://qvl.test:{secure.port}/", config=config, lookup=lookup, tls=trusting)
        assert good == b"here"
        error = fetch(f"https://other.test:{secure.port}/", config=config, lookup=lookup, tls=trusting)
        is_refused(error, 422, "fetch_failed", "certificate")

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_an_issuer_that_the_environment_names(
        self, name, secure, certificate, tmp_path, monkeypatch, fetch, is_refused, names
    ):
        """In a folder OpenSSL finds it by the hash of its subject."""
        (tmp_path / "f97284b4.0").symlink_to(certificate)
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv(name, certificate if name == "SSL_CERT_FILE" else str(tmp_path))
        lookup = names({"qvl.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
        config = MediaConfig(allow_hosts=("qvl.test", "other.test"))
        assert fetch(f"https://qvl.test:{secure.port}/", config=config, lookup=lookup) == b"here"
        error = fetch(f"https://other.test:{secure.port}/", config=config, lookup=lookup)
        is_refused(error, 422, "fetch_failed", "certificate")

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_file_of_issuers_that_is_none_is_told_at_the_start(self, text, tmp_path, monkeypatch):
        file = tmp_path / "ca.pem"
        if text is not None:
            file.write_text(text)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(ConfigError, match=f"SSL_CERT_FILE is {file}, which holds no certificates"):
            Fetcher(MediaConfig(), Limits())
        Fetcher(MediaConfig(url_fetch=False), Limits())

    def test_an_unknown_issuer_is_refused(self, secure, fetch, is_refused, names):
        lookup = names({"qvl.test": ["127.0.0.1"]})
        config = MediaConfig(allow_hosts=("qvl.test",))
        error = fetch(f"https://qvl.test:{secure.port}/", config=config, lookup=lookup)
        is_refused(error, 422, "fetch_failed", "certificate")


class Recorder(httpcore.AsyncNetworkBackend):
    """Notes the addresses it is asked to dial, and dials none: these are other people's."""

    def __init__(self):
        self.dialled = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.dialled.append(host)
        raise httpcore.ConnectError("not here")


def dialled(host, lookup):
    network = Recorder()
    backend = CheckedBackend(AllowedHosts(()), lookup, network)
    with pytest.raises(httpcore.ConnectError):
        asyncio.run(backend.connect_tcp(host, 80, timeout=1.0))
    return network.dialled
