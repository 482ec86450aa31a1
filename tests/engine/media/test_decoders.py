"""Decoding processes: what kills one costs nobody else anything, and it is replaced."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError, Unavailable
from qvl.engine.media import MediaLoader
from qvl.engine.media.decoders import ForkServer, Worker
from qvl.engine.media.wire import Job, heap
from qvl.engine.protocol import Content
from tests.engine.media.pdfs import endless
from tests.replicas import until

ONE = MediaConfig(workers=1)
LITTLE = 128 << 20


@pytest.fixture(scope="module")
def own() -> Iterator[ForkServer]:
    """To be killed, and with little memory."""
    server = ForkServer(LITTLE)
    yield server
    server.close()


def fork_servers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if is_ours(each)]


def is_ours(process: psutil.Process) -> bool:
    """Other tests' children may be zombies, which have no command line."""
    try:
        return "qvl.engine.media.worker" in process.cmdline()
    except psutil.Error:
        return False


def decoders() -> list[psutil.Process]:
    """A fork server may be gone by the time it is asked."""
    found: list[psutil.Process] = []
    for server in fork_servers():
        with suppress(psutil.NoSuchProcess):
            found += server.children()
    return found


def run(loader_of: Callable[[], MediaLoader], *rounds: list[Content]) -> list[list[object]]:
    async def main() -> list[list[object]]:
        loader = loader_of()
        try:
            return [await loader.load(contents) for contents in rounds]
        finally:
            await loader.close()

    return asyncio.run(main())


@contextmanager
def killing(most: int) -> Iterator[list[int]]:
    """Kill -9 of a decoder whenever there is a new one, until `most` are dead."""
    killed: list[int] = []
    known, over = decoders(), threading.Event()  # those of the test before may still be ending

    def work() -> None:
        while not over.is_set() and len(killed) < most:
            for each in decoders():
                with suppress(psutil.NoSuchProcess):
                    lives = each not in known and each.status() != psutil.STATUS_ZOMBIE
                    if lives and each.cpu_times().user > 0.02:  # at its work
                        each.kill()
                        killed.append(each.pid)
                        known.append(each)
                        break
            time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def good(encoded, picture, seed: int = 0) -> Content:  # type: ignore[no-untyped-def]
    return Content(images=(encoded(picture(64, 64, seed=seed)),))


def test_a_killed_decoder_costs_no_answer(forks, film, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    long = Content(videos=(film(count=2000, size=(320, 240), codec="mpeg4", still=True),))
    killed: list[int] = []
    while not killed:  # a busy machine may have it decoded before
        with killing(1) as killed:
            ((outcome, beside),) = run(
                lambda: MediaLoader(ONE, Limits(), forks=forks), [long, good(encoded, picture)]
            )
        assert not isinstance(outcome, QvlError) and not isinstance(beside, QvlError)


def test_what_ends_two_is_refused_alone(forks, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    long = Content(images=(endless(),))
    with killing(2) as killed:
        first, second = run(lambda: MediaLoader(ONE, Limits(), forks=forks), [long], [good(encoded, picture)])
    assert len(killed) == 2
    assert isinstance(first[0], QvlError)
    assert (first[0].status, first[0].code, first[0].param) == (422, "decoder_crashed", "input.image")
    assert not isinstance(second[0], QvlError)


def test_a_decoder_that_takes_too_long_is_replaced(forks, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    long = Content(images=(endless(),))
    limits = Limits(decode_seconds=1)
    again = [[good(encoded, picture)]] * 5
    first, *others = run(lambda: MediaLoader(ONE, limits, forks=forks), [long], *again)
    assert isinstance(first[0], QvlError)
    assert (first[0].status, first[0].code) == (422, "decode_timeout")
    # A busy machine may be slow with a picture too, though hardly with five.
    assert any(not isinstance(outcome, QvlError) for (outcome,) in others)


def test_one_that_stops_in_the_middle_of_an_answer_is_given_up() -> None:
    """It has sent how long its answer is, and reads nothing that it is asked."""
    ours, theirs = socket.socketpair()
    with theirs, subprocess.Popen(["sleep", "60"]) as process:
        theirs.sendall(b"\x10\0\0\0" + b"\0" * 8)
        worker, job = Worker(ours, process.pid), Job("image", Limits(decode_seconds=0.3))
        for body in (b"small", b"large" * 1_000_000):
            with pytest.raises(OSError, match="timed out"):
                worker.ask(job, body, lambda: False, heap)
        worker.kill()


def test_memory_is_bounded(own, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    """A 10 kB file of 64 million pixels, which become 256 MB of RGB."""
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    first, second = run(
        lambda: MediaLoader(ONE, Limits(), forks=own),
        [Content(images=(bomb.getvalue(),))],
        [good(encoded, picture)],
    )
    assert isinstance(first[0], QvlError) and first[0].status == 422
    assert first[0].code in ("undecodable_media", "decoder_crashed")
    assert not isinstance(second[0], QvlError)


def test_a_killed_fork_server_is_started_again(own, encoded, picture, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The first time in vain: a machine may have no memory, or no handle, for it."""
    (found,) = [each for each in fork_servers() if each.pid == own.pid]
    found.kill()
    found.wait()
    with monkeypatch.context() as broken, pytest.raises(Unavailable) as refused:
        broken.setattr("sys.executable", "/no/such")
        own.fork()
    assert refused.value.code == "decoders_died"
    ((outcome,),) = run(lambda: MediaLoader(ONE, Limits(), forks=own), [good(encoded, picture)])
    assert not isinstance(outcome, QvlError)
    assert own.pid != found.pid


def test_a_process_with_many_handles(own, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    """As a server has with a thousand connections; select() takes none above 1 023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with ExitStack() as held:
        for _ in range(1100):
            held.enter_context(Path(os.devnull).open())
        ((outcome,),) = run(lambda: MediaLoader(ONE, Limits(), forks=own), [good(encoded, picture)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(outcome, QvlError), outcome


def test_nothing_stays_behind_and_no_key_goes_in(monkeypatch, encoded, picture) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("QVL_API_KEY", "secret")
    seen: list[psutil.Process] = []

    async def main() -> None:
        before = {each.pid for each in fork_servers()}
        loader = MediaLoader(ONE, Limits())
        await loader.ready()
        await loader.load([good(encoded, picture)])
        (server,) = [each for each in fork_servers() if each.pid not in before]
        seen.extend((server, *server.children()))
        assert len(seen) == 2
        for each in seen:
            assert "secret" not in Path(f"/proc/{each.pid}/environ").read_text()
        await loader.close()

    asyncio.run(main())
    _, alive = psutil.wait_procs(seen, timeout=60)
    assert not alive


@pytest.mark.parametrize("hangs", [False, True])
def test_a_dead_parent_takes_them_with_it(own, hangs: bool) -> None:  # type: ignore[no-untyped-def]
    """As after a kill -9 of the server: nothing is told to stop, their sockets close."""
    worker = own.fork()
    (found,) = [each for each in fork_servers() if each.pid == own.pid]
    until(lambda: len(found.children()) == 1)  # one that another test has left may not be reaped yet
    family = [found, *found.children()]
    worker.ask(Job("image", Limits()), b"", lambda: False, heap)  # it lives: nothing is half set up
    if hangs:
        family[1].suspend()
    own._control.close()
    worker._sock.close()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    os.close(worker._process)
