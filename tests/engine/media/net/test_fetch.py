"""URLs, against a real server on the loopback."""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib

import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.media import connect
from qvl.engine.protocol import Content
from tests.replicas import until

LOCAL = MediaConfig(workers=2, allow_hosts=("127.0.0.1",))


class TestGood:
    def test_an_image(self, server, one, picture, encoded):
        data = encoded(picture(70, 60))
        inline = one(Content(images=(data,)))
        fetched = one(Content(images=(server.add("/a.png?x=1&y=%20", data),)), config=LOCAL)
        assert fetched.digest == inline.digest
        path, headers = server.seen[0]
        assert path == "/a.png?x=1&y=%20"
        assert headers["user-agent"] == "qvl" and headers["accept-encoding"] == "identity"
        assert "cookie" not in headers and "authorization" not in headers

    def test_a_video_and_frames(self, server, load, film, picture, encoded):
        clip, frame = film(count=6), encoded(picture(64, 64))
        urls = server.add("/v.mp4", clip), server.add("/f.png", frame)
        content = Content(videos=(urls[0], (urls[1], urls[1])), images=(urls[1],))
        (fetched,) = load(content, config=LOCAL)
        (inline,) = load(Content(videos=(clip, (frame, frame)), images=(frame,)))
        assert [visual.digest for visual in fetched] == [visual.digest for visual in inline]

    @pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZip"])
    def test_content_encodings(self, coding, server, fetch):
        packed = zlib.compress(b"x" * 1000) if coding == "deflate" else gzip.compress(b"x" * 1000)
        url = server.add("/a", packed, Content_Encoding=coding)
        assert fetch(url) == b"x" * 1000

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects(self, status, server, fetch):
        server.add("/end", b"here")
        server.add("/middle", status=status, Location="end")
        assert fetch(server.add("/start", status=status, Location=f"{server.url}/middle")) == b"here"

    def test_the_proxy_of_the_environment_is_ignored(self, server, monkeypatch, fetch):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert fetch(server.add("/a", b"x")) == b"x"

    def test_cookies_are_not_kept(self, server, fetch):
        server.add("/end", b"x")
        fetch(server.add("/start", status=302, Location="/end", Set_Cookie="a=b; Path=/"))
        assert [path for path, _ in server.seen] == ["/start", "/end"]
        assert all("cookie" not in headers for _, headers in server.seen)

    def test_many_at_once(self, server, load, picture, encoded):
        urls = [server.add(f"/{place}", encoded(picture(32, 32, seed=place))) for place in range(60)]
        outcomes = load(*(Content(images=(url,)) for url in urls), config=LOCAL)
        assert len({outcome[0].digest for outcome in outcomes}) == 60


class TestBounds:
    def test_content_length(self, server, fetch, is_refused):
        url = server.route("/a", lambda handler: declare(handler, 10**12))
        is_refused(fetch(url), 413, "media_too_large", "1,000,000,000,000")

    def test_an_endless_stream(self, server, fetch, is_refused):
        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            while not server.released.is_set():
                handler.wfile.write(b"x" * 65536)

        error = fetch(server.route("/a", answer), Limits(media_bytes=1 << 20))
        is_refused(error, 413, "media_too_large", "1,048,576", "--media-bytes")

    @pytest.mark.parametrize("depth", [1, 2])
    def test_a_gzip_bomb(self, depth, server, fetch):
        body = gzip.compress(bytes(100 << 20))
        assert len(body) < 120_000
        url = server.add("/a", body, Content_Encoding=", ".join(["gzip"] * depth))
        error = fetch(url, Limits(media_bytes=1 << 20))
        assert (error.status, error.code) == (
            (413, "media_too_large") if depth == 1 else (422, "fetch_failed")
        )

    def test_the_limit_itself_passes(self, server, fetch, is_refused):
        url = server.add("/a", b"x" * 1000)
        packed = server.add("/b", gzip.compress(b"x" * 1000), Content_Encoding="gzip")
        assert fetch(url, Limits(media_bytes=1000)) == fetch(packed, Limits(media_bytes=1000)) == b"x" * 1000
        is_refused(fetch(url, Limits(media_bytes=999)), 413, "media_too_large")
        is_refused(fetch(packed, Limits(media_bytes=999)), 413, "media_too_large")

    def test_a_server_that_does_not_answer(self, server, fetch, is_refused):
        url = server.route("/a", lambda handler: server.released.wait())
        is_refused(fetch(url, Limits(fetch_seconds=0.2)), 422, "fetch_timeout", "0.2 s", "--fetch-seconds")

    def test_a_server_that_trickles(self, server, fetch, is_refused):
        def answer(handler):
            declare(handler, 10_000)
            while not server.released.wait(0.02):
                handler.wfile.write(b"x")

        is_refused(fetch(server.route("/a", answer), Limits(fetch_seconds=0.3)), 422, "fetch_timeout")

    def test_a_resolver_that_hangs(self, fetch, is_refused):
        async def lookup(host, port):
            await asyncio.Event().wait()

        is_refused(fetch("http://a.test/", Limits(fetch_seconds=0.1), lookup=lookup), 422, "fetch_timeout")

    def test_look_ups_that_hang_are_so_many_at_most(self, fetch, is_refused, monkeypatch):
        """No call can be stopped, and each has a thread."""
        may = threading.Event()

        def hangs(host, port, **settings):
            may.wait(300)
            raise OSError("unknown name")

        monkeypatch.setattr(connect, "_lookups", threading.BoundedSemaphore(2))
        monkeypatch.setattr(connect.socket, "getaddrinfo", hangs)
        try:
            for host in ("a.test", "b.test"):
                is_refused(fetch(f"http://{host}/", Limits(fetch_seconds=0.1)), 422, "fetch_timeout")
            is_refused(fetch("http://c.test/"), 422, "fetch_failed", "c.test", "look-ups")
        finally:
            may.set()
        until(lambda: connect._lookups.acquire(blocking=False))
        connect._lookups.release()
        is_refused(fetch("http://d.test/"), 422, "fetch_failed", "cannot resolve the host 'd.test'")

    def test_too_many_redirects(self, server, fetch, is_refused):
        url = server.add("/a", status=302, Location="/a")
        is_refused(fetch(url, Limits(redirects=3)), 422, "too_many_redirects", "3 times", "--redirects")
        assert len(server.seen) == 4

    def test_slow_redirects_share_one_deadline(self, server, fetch, is_refused):
        def answer(handler):
            server.released.wait(0.1)
            handler.send_response(302)
            handler.send_header("Location", "/a")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        url = server.route("/a", answer)
        is_refused(fetch(url, Limits(fetch_seconds=0.35, redirects=1000)), 422, "fetch_timeout")


class TestFailures:
    @pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 500, 503])
    def test_a_status(self, status, server, fetch, is_refused):
        is_refused(fetch(server.add("/a", status=status)), 422, "fetch_failed", str(status))

    def test_a_body_cut_short(self, server, fetch, is_refused):
        def answer(handler):
            declare(handler, 1000)
            handler.wfile.write(b"x" * 10)
            handler.close_connection = True

        is_refused(fetch(server.route("/a", answer)), 422, "fetch_failed")

    def test_a_compressed_body_cut_short(self, server, fetch, is_refused):
        url = server.add("/a", gzip.compress(b"x" * 1000)[:-12], Content_Encoding="gzip")
        is_refused(fetch(url), 422, "fetch_failed", "ends early")

    @pytest.mark.parametrize("coding", ["br", "zstd", "nonsense"])
    def test_an_encoding_not_asked_for(self, coding, server, fetch, is_refused):
        is_refused(fetch(server.add("/a", b"x", Content_Encoding=coding)), 422, "fetch_failed", coding)

    def test_broken_compression(self, server, fetch, is_refused):
        is_refused(fetch(server.add("/a", b"not gzip", Content_Encoding="gzip")), 422, "fetch_failed")

    def test_no_server(self, make_server, fetch, is_refused):
        server = make_server()
        server.close()
        is_refused(fetch(server.url + "/a"), 422, "fetch_failed")

    def test_not_http(self, server, fetch, is_refused):
        url = server.route("/a", lambda handler: garbage(handler))
        is_refused(fetch(url), 422, "fetch_failed")

    def test_an_unknown_name(self, fetch, is_refused, names):
        is_refused(fetch("http://nowhere.test/a", lookup=names({})), 422, "fetch_failed", "nowhere.test")

    def test_a_redirect_to_nonsense(self, server, fetch):
        for location in ("http://[", "http://", "http://a b/", "\x00"):
            error = fetch(server.add("/a", status=302, Location=location))
            assert error.status == 422 and error.code in ("fetch_failed", "url_forbidden")

    def test_errors_name_the_item(self, server, refusal):
        error = refusal(Content(images=("data:,x", server.url + "/none"), where="input[7]"), config=LOCAL)
        assert error.param == "input[7].image[0]"
        error = refusal(Content(images=(server.url + "/none",), where="input[7]"), config=LOCAL)
        assert (error.param, error.code) == ("input[7].image", "fetch_failed")


def garbage(handler):
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
    handler.close_connection = True


def declare(handler, length):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def test_no_thread_or_connection_is_left(server, fetch):
    before = threading.active_count()
    fetch(server.add("/", b"x"))
    until(lambda: threading.active_count() <= before)  # the server's own ends with the connection
