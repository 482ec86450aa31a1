"""A loader per test, and helpers to make media."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError
from qvl.engine.media import MediaLoader, Visual
from qvl.engine.media.decoders import ForkServer
from qvl.engine.protocol import Content
from tests.engine.media import films

Outcome = tuple[Visual, ...] | QvlError
Load = Callable[..., list[Outcome]]


@pytest.fixture
def load(forks: ForkServer) -> Load:
    """`load(content, ..., config=, limits=)`: one call of a fresh loader, closed afterwards."""

    def run(*contents: Content, config: object = None, limits: object = None) -> list[Outcome]:
        async def main() -> list[Outcome]:
            loader = MediaLoader(config or MediaConfig(workers=2), limits or Limits(), forks=forks)
            try:
                return await loader.load(contents)
            finally:
                await loader.close()

        return asyncio.run(main())

    return run


@pytest.fixture
def one(load: Load) -> Callable[..., Visual]:
    """The only visual of one content; an error is raised."""

    def run(content: Content, **settings: object) -> Visual:
        (outcome,) = load(content, **settings)
        if isinstance(outcome, QvlError):
            raise outcome
        (visual,) = outcome
        return visual

    return run


@pytest.fixture
def refusal(load: Load) -> Callable[..., QvlError]:
    """The error of one content."""

    def run(content: Content, **settings: object) -> QvlError:
        (outcome,) = load(content, **settings)
        assert isinstance(outcome, QvlError), outcome
        return outcome

    return run


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Noise over a gradient: a resize that is off by anything shows."""

    def make(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
        rng = np.random.default_rng(seed)
        noise: npt.NDArray[np.uint8] = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        noise[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None]
        image = Image.fromarray(noise)
        return image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").convert(mode)

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        if format == "PNG":
            options.setdefault("compress_level", 1)
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def remuxed(tmp_path):
    """The same packets in a new MP4; shifted before zero, they are cut off by an edit list."""

    def run(data, shift=0, **container_options):
        path = tmp_path / "remuxed.mp4"
        with (
            av.open(io.BytesIO(data)) as old,
            av.open(str(path), "w", container_options=container_options) as new,
        ):
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is None:
                    continue
                ticks = int(shift / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, stream
                new.mux(packet)
        return path.read_bytes()

    return run


@pytest.fixture
def is_refused() -> Callable[..., None]:
    def check(error: QvlError, status: int, code: str, *words: str) -> None:
        assert (error.status, error.code) == (status, code), error.message
        assert error.type == "invalid_request_error"
        assert all(word in error.message for word in words), error.message

    return check


@pytest.fixture
def film() -> Callable[..., bytes]:
    return films.made


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Server:
    """A real HTTP server on the loopback, in threads. What it was asked for is in `seen`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.asked = threading.Event()
        self.released = threading.Event()
        self._routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                outer.asked.set()
                route = outer._routes.get(self.path)
                if route is None:
                    self.send_error(404)
                    return
                with contextlib.suppress(ConnectionError):
                    route(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = _Threads(("127.0.0.1", 0), Handler)
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        return self.route(path, answer)

    def route(self, path: str, answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        self._routes[path] = answer
        return self.url + path

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(tls: ssl.SSLContext | None = None) -> Server:
        made.append(Server(tls))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="session")
def certificate() -> str:
    """Key and certificate of the host qvl.test, self-signed, good until 2126; worth nothing elsewhere."""
    return str(Path(__file__).with_name("qvl.test.pem"))
