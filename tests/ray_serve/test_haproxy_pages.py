"""What pages of other origins are answered by HAProxy itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from qvl.engine.api import create_app
from qvl.engine.config import EngineConfig, ServerConfig
from tests import web
from tests.engine.http.fake import FakeEngine
from tests.ray_serve.front import connected, free_port, front


@pytest.mark.parametrize("origins", [("https://a.example", "https://b.example"), ("*",), ()])
def test_a_page_reads_haproxys_own_errors_where_it_was_named(
    tmp_path: Path, origins: tuple[str, ...]
) -> None:
    with front(tmp_path / "haproxy.cfg", f"server gone 127.0.0.1:{free_port()}", origins) as port:
        connected(port).close()
        for origin in ("https://a.example", "https://elsewhere.example"):
            answer = web.get(f"http://127.0.0.1:{port}/", headers={"origin": origin}, timeout=60)
            error, *others = answer.json().values()
            assert (answer.status_code, *others) == (503, error["message"], "no_replica", error["message"])
            named = origin if origin in origins or "*" in origins else None
            assert answer.headers.get("access-control-allow-origin") == named
            told = answer.headers.get("vary"), answer.headers.get("access-control-expose-headers")
            assert told == (("origin", "retry-after") if named else (None, None))


def test_what_a_browser_asks_beforehand_needs_no_replica(tmp_path: Path) -> None:
    """Answered as a replica would, or the page never gets to read why its own request failed."""
    origin, config = "https://a.example", EngineConfig(embedder="a", reranker="b")
    app = create_app(FakeEngine(), ServerConfig(engine=config, cors_origin=(origin,)))
    asks = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-request-id",
    }
    with (
        TestClient(app) as replica,
        front(tmp_path / "haproxy.cfg", f"server gone 127.0.0.1:{free_port()}", (origin,)) as port,
    ):
        connected(port).close()
        wanted = replica.options("/v1/embeddings", headers=asks)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as page:
            given = page.options("/v1/embeddings", headers=asks)
            assert (given.status_code, given.text) == (wanted.status_code, wanted.text) == (200, "OK")
            for name in ("origin", "methods", "headers"):
                name = f"access-control-allow-{name}"
                assert given.headers.get_list(name) == wanted.headers.get_list(name)
            assert given.headers["access-control-max-age"] == wanted.headers["access-control-max-age"]
            assert "origin" in given.headers["vary"]  # a replica's names what no cache keeps, too
            elsewhere = asks | {"origin": "https://elsewhere.example"}
            assert page.options("/v1/embeddings", headers=elsewhere).status_code == 503
            del asks["access-control-request-method"]
            assert page.options("/v1/embeddings", headers=asks).status_code == 503


def test_a_replicas_own_headers_for_pages_stay(tmp_path: Path) -> None:
    own = "http-request return status 200 hdr access-control-allow-origin https://own.example"
    with front(tmp_path / "haproxy.cfg", own, ("https://a.example",)) as port:
        connected(port).close()
        answer = web.get(f"http://127.0.0.1:{port}/", headers={"origin": "https://a.example"}, timeout=60)
        assert answer.headers.get_list("access-control-allow-origin") == ["https://own.example"]
