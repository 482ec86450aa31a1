"""`qvl demo` from start to end, and that nothing it started outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "qvl.engine.cli", "demo"]


def started_by(mark: Path) -> list[str]:
    """Command lines of running processes with this cache folder in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if str(mark).encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return found


@pytest.mark.engine
def test_the_demo_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = os.environ | {"QVL_CACHE": str(tmp_path), "COLUMNS": "120"}
    done = subprocess.run(DEMO, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("reranker has random weights", "Query:", "image", "page", "video", "rerank", "seconds"):
        assert word in done.stdout
    assert started_by(tmp_path) == []


@pytest.mark.engine
def test_the_demo_stops_its_server_when_it_is_stopped(tmp_path: Path) -> None:
    environment = os.environ | {"QVL_CACHE": str(tmp_path)}
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if "Starting the server" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert started_by(tmp_path) == []
