"""https by --tls-cert, of one server and of several replicas, as browsers and our client check it."""

from __future__ import annotations

import ipaddress
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qvl.engine import tls
from qvl.engine.client import Client
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import BadRequest, ConfigError
from tests import web
from tests.engine.http import test_replicas, test_server
from tests.engine.http.running import Running
from tests.replicas import until

one = test_server.start
several = test_replicas.start

_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem` signed itself, for 127.0.0.1; `both.pem` has its key too, `locked.pem` under a password."""
    folder = tmp_path_factory.mktemp("tls")
    certify(folder)
    return folder


def certify(folder: Path) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.NameAttribute(NameOID.COMMON_NAME, "qvl test")
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([name]))
        .issuer_name(x509.Name([name]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(_PEM)
    )
    locks = {"both": serialization.NoEncryption(), "locked": serialization.BestAvailableEncryption(b"word")}
    (folder / "ca.pem").write_bytes(certificate)
    for name_, lock in locks.items():
        (folder / f"{name_}.pem").write_bytes(certificate + key.private_bytes(_PEM, _PKCS8, lock))


def ready(server: Running, ca: str) -> str:
    """Its URL, once it takes requests."""
    url = server.url.replace("http:", "https:")
    with Client(url, ca=ca) as client:
        until(client.ready)
    return url


@pytest.mark.parametrize("kind", ["one", "several"])
def test_https(
    kind: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = str(folder / "ca.pem")
    server = request.getfixturevalue(kind)(tls=str(folder / "both.pem"))
    url = ready(server, ca)
    with Client(url, ca=ca) as client:
        assert np.linalg.norm(client.embed(["a"]), axis=1) == pytest.approx(1, abs=1e-6)
    with Client(url) as stranger, pytest.raises(BadRequest, match=r"certificate.* SSL_CERT_FILE="):
        stranger.embed(["a"])
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    with Client(url) as client:
        assert len(client.models()) == 2
    with pytest.raises(httpx.TransportError):
        web.get(f"{server.url}/health/live", timeout=60)
    host, port = url.removeprefix("https://").split(":")
    old = ssl.create_default_context(cafile=ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((host, int(port)), 60) as raw,
        old.wrap_socket(raw, server_hostname=host) as s,
    ):
        assert s.version() == "TLSv1.2"
    assert server.process.stdout
    assert server.process.stdout.readline().startswith(f"qvl is ready on {url}: ")
    server.signal()
    _, err = server.process.communicate(timeout=300)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("cert", "said"),
    [
        ("ca.pem", "no certificate with its unencrypted key"),
        ("locked.pem", "unencrypted"),
        ("none.pem", "read"),
    ],
)
def test_what_is_no_certificate_is_told_before_anything_is_loaded(folder: Path, cert: str, said: str) -> None:
    config = ServerConfig(engine=EngineConfig(embedder="x"), tls_cert=str(folder / cert))
    with pytest.raises(ConfigError, match=said):
        tls.check(config)


def test_a_key_needs_its_certificate() -> None:
    with pytest.raises(ConfigError, match="needs --tls-cert"):
        ServerConfig(engine=EngineConfig(embedder="x"), tls_key="k.pem")


@pytest.mark.parametrize("kind", ["one", "several"])
def test_a_certificate_is_replaced(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """New connections get the new one, kept ones stay, and a bad file changes nothing."""
    (tmp_path / "new").mkdir()
    certify(tmp_path)
    certify(tmp_path / "new")
    used, old, new = tmp_path / "both.pem", str(tmp_path / "ca.pem"), str(tmp_path / "new" / "ca.pem")
    server = request.getfixturevalue(kind)(tls=str(used))
    url = ready(server, old)
    with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=old), timeout=120) as kept:
        assert kept.get("/health/live").status_code == 200
        renewed = (tmp_path / "new" / "both.pem").read_bytes()
        used.write_bytes(renewed[: len(renewed) // 2])
        server.signal(signal.SIGHUP)
        for _ in range(4):
            assert trusted(url, old)
        used.write_bytes(renewed)
        server.signal(signal.SIGHUP)
        until(lambda: all(trusted(url, new) for _ in range(4)))
        assert not trusted(url, old)
        assert kept.get("/health/live").status_code == 200
    server.signal()
    _, err = server.process.communicate(timeout=300)
    assert "; kept the old certificate" in err
    assert "Traceback" not in err


def trusted(url: str, ca: str) -> bool:
    """On a connection of its own."""
    context = ssl.create_default_context(cafile=ca)
    try:
        return httpx.get(f"{url}/health/live", verify=context, timeout=120).is_success
    except httpx.ConnectError:
        return False
