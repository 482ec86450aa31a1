"""What `qvl search add` makes of lines and files that are bad, come twice or are no items."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.conftest import Run, Start, lines_of, write


@pytest.mark.parametrize(
    ("most", "batch"), [(9, 9), (9, 1), (2, 9)], ids=["one request", "side by side", "each alone"]
)
def test_a_line_that_repeats_a_bad_one_is_bad(
    qvl: Run, fake: Start, tmp_path: Path, most: int, batch: int
) -> None:
    bad, good = {"id": "a", "text": "BAD"}, {"id": "b", "text": "good"}
    source = write(tmp_path / "in.jsonl", [bad, bad, "BAD too", "BAD too"])
    server = fake(most=most, delay=0.1)
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", server.url, "--batch", batch)
    assert "no line is good" in qvl(*command, code=1)
    write(source, [bad, good, "fine", good, bad])
    assert "2 put, 1 were there before; 2 in all" in qvl(*command)
    assert [each["line"] for each in lines_of(tmp_path / "in.jsonl.errors.jsonl")] == [1, 5]
