"""The README's curl lines, run as they are written against the real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Server

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
CURLS = [
    line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")
]


def test_there_are_curl_lines_near_the_top() -> None:
    assert len(CURLS) >= 2
    place = next(i for i, line in enumerate(README.splitlines(), 1) if line.startswith("curl "))
    assert place <= 25
    assert len(README.splitlines()) <= 200


@pytest.mark.engine
@pytest.mark.parametrize("curl", CURLS)
def test_curl_lines_answer(server: Server, curl: str) -> None:
    command = curl.replace("localhost:8080", server.url.removeprefix("http://"))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    answer = json.loads(done.stdout)
    assert answer.get("data") or answer.get("results"), answer
