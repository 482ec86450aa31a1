"""Models by their hub names, from a hub over HTTP that has one model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from qvl.engine.demo.bundled import FOLDER
from tests.engine.conftest import CLEAN
from tests.ports import free_port

MODEL = FOLDER / "embedder"
NAME, COMMIT = "org/Finds-2B", "c0" * 20
REVISIONS = {"main": "a1" * 20, "v1": COMMIT, COMMIT: COMMIT}
FIND = """
import sys
from qvl.engine import checkpoint
from qvl.engine.config import EngineConfig
(found,) = checkpoint.find(EngineConfig(embedder=sys.argv[1]))
size = (found.path / "model.safetensors").stat().st_size
print(found.name, found.said, found.revision or found.path.name, size)
"""
"""Of a process of its own: the hub's address is read where its library is imported."""
KINDS = """
import sys
from qvl.engine import checkpoint
from qvl.engine.errors import CheckpointError
for name in sys.argv[1:]:
    try:
        checkpoint.resolve(name)
    except CheckpointError as error:
        print(type(error).__name__)
"""


class Hub(BaseHTTPRequestHandler):
    """What is asked for a snapshot: the commit of a revision, its list of files, and each of them."""

    def do_GET(self) -> None:
        asked = unquote(self.path.partition("?")[0])
        _, _, revision = asked.partition("/revision/" if "/revision/" in asked else "/tree/")
        commit = REVISIONS.get(revision)
        if "/org/status-" in asked:
            self._answer(int(asked.partition("-")[2][:3]), b"{}")
        elif "/org/cut/resolve/" in asked and self.command == "GET":
            self._answer(200, b"{", {"Content-Length": "1000000"})
            self.connection.close()
        elif f"/{NAME}/" not in asked.replace("/org/cut/", f"/{NAME}/"):
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in asked:
            self._file(MODEL / asked.rpartition("/")[2])
        elif commit is None and revision not in REVISIONS.values():
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif "/revision/" in asked:
            self._answer(200, json.dumps({"id": NAME, "sha": commit}).encode())
        else:
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _tag(file)}
                for file in MODEL.iterdir()
            ]
            self._answer(200, json.dumps(files).encode())

    do_HEAD = do_GET

    def _file(self, file: Path) -> None:
        commit = self.path.partition("/resolve/")[2].partition("/")[0]
        self._answer(200, file.read_bytes(), {"ETag": f'"{_tag(file)}"', "X-Repo-Commit": commit})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _tag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def run(hub: str, tmp_path: Path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**CLEAN, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), **variables}
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


def test_a_revision_pins_the_weights(run, tmp_path: Path) -> None:
    size = (MODEL / "model.safetensors").stat().st_size
    for asked, commit in (("", "a1" * 20), ("@v1", COMMIT), (f"@{COMMIT}", COMMIT)):
        done = run("-c", FIND, NAME + asked)
        assert done.stdout.split() == ["Finds-2B", NAME, commit, str(size)], done.stderr
    # What is in the cache needs no hub.
    away = run("-c", FIND, f"{NAME}@v1", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert away.stdout.split()[2] == COMMIT, away.stderr


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (f"{NAME}@v9", f"the hub's {NAME} has no revision 'v9': give a branch, a tag or a commit of it"),
        (f"{NAME}@{'0' * 40}", f"the hub's {NAME} has no revision '{'0' * 40}'"),
        ("org/other", "did not give it (404"),
        ("org/other@v1", "did not give it (404"),
    ],
)
def test_what_the_hub_does_not_have_is_told(model: str, told: str, run) -> None:
    quiet = ["--port", str(free_port()), "--log-level", "warning"]
    done = run("-m", "qvl.engine.cli", "serve", model, *quiet)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_hub_may_give_later_is_told_apart(run) -> None:
    """By exit code 3 of `qvl serve`: whoever supervises it starts it again."""
    later = ["org/status-429", "org/status-500", "org/status-503", "org/cut"]
    never = ["org/status-401", "org/status-403", "org/other", "org/a name"]
    kinds = ["NotStarted"] * len(later) + ["CheckpointError"] * len(never)
    done = run("-c", KINDS, *later, *never)
    assert done.stdout.split() == kinds, done.stderr
    assert run("-c", KINDS, NAME, HF_ENDPOINT="http://127.0.0.1:9").stdout == "NotStarted\n"
    assert run("-c", KINDS, NAME, HF_HUB_OFFLINE="1").stdout == "CheckpointError\n"
    quiet = ["--port", str(free_port()), "--log-level", "warning"]
    done = run("-m", "qvl.engine.cli", "serve", *quiet, "org/status-503")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


def test_a_folder_wins_over_a_revision(run, tmp_path: Path) -> None:
    folder = tmp_path / "org" / "finds@v1"
    folder.parent.mkdir()
    folder.symlink_to(MODEL)
    done = subprocess.run(
        [sys.executable, "-c", FIND, "org/finds@v1"],
        capture_output=True, text=True, cwd=tmp_path, env=CLEAN | {"HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.stdout.split()[:3] == ["embedder", "org/finds@v1", "finds@v1"], done.stderr
