"""`qvl embed` and `qvl rerank` as a user runs them: files in, files out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from qvl.engine.admission import Admission, cost
from qvl.engine.config import Limits
from qvl.engine.errors import Overloaded, Unavailable
from qvl.engine.jobs import answers
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.pipeline import run
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.jobs.tasks import Embedding
from qvl.engine.jobs.work import Work
from qvl.engine.protocol import EmbedRequest, EmbedResult, Usage
from tests.engine.conftest import Run, Start, lines_of, vectors_of, write


def test_every_format_holds_the_same_rows_in_order(
    qvl: Run, fake: Start, source: Path, tmp_path: Path
) -> None:
    url = fake().url
    for suffix in ("jsonl", "npz", "parquet"):
        qvl("embed", source, "-o", tmp_path / f"out.{suffix}", "--url", url, "--batch", 7)
    rows = lines_of(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [i if i % 2 else f"d{i}" for i in range(50)]
    assert [row["index"] for row in rows] == list(range(50))
    archive = np.load(tmp_path / "out.npz")
    assert archive["ids"].tolist() == [str(row["id"]) for row in rows]
    assert archive["embeddings"].dtype == np.float32
    np.testing.assert_array_equal(archive["embeddings"], vectors_of(rows))
    table = pq.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[8]"
    assert table["id"].to_pylist() == archive["ids"].tolist()
    np.testing.assert_array_equal(np.asarray(table["embedding"].to_pylist(), np.float32), vectors_of(rows))


def test_options_reach_the_server(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    server = fake(key="k")
    options = ("--instruction", "Find.", "--dimensions", 4, "--key", "k", "--batch", 50)
    qvl("embed", source, "-o", tmp_path / "out.npz", "--url", server.url, *options)
    (entry,) = server.log()
    assert (entry["body"]["instruction"], entry["body"]["dimensions"]) == ("Find.", 4)
    assert np.load(tmp_path / "out.npz")["embeddings"].shape == (50, 4)


def test_a_full_server_is_waited_for_from_the_start(
    qvl: Run, fake: Start, source: Path, tmp_path: Path
) -> None:
    full = [429, {"retry-after": "1"}, {"error": {"message": "too many", "code": "rate_limited"}}]
    url = fake(unlisted=[full, full]).url
    said = qvl("embed", source, "-o", tmp_path / "out.jsonl", "--url", url)
    assert said.count(f"waiting for the server at {url}: too many") == 1
    assert len(lines_of(tmp_path / "out.jsonl")) == 50


def test_bad_lines_go_to_a_file_of_their_own(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        '"a"\n\nnot json\n{"id": "x", "text": "BAD"}\n7\n{"id": [1], "text": "a"}\n{"id": 5, "text": "b"}\n'
        + f'{{"id": "{"x" * 4097}", "text": "a"}}'
    )
    said = qvl("embed", source, "-o", tmp_path / "out.jsonl", "--url", fake().url)
    assert "2 rows, 5 bad lines left out" in said
    assert [(row["id"], row["index"]) for row in lines_of(tmp_path / "out.jsonl")] == [(0, 0), (5, 6)]
    errors = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert [(each["line"], each["error"]["code"], each["error"]["param"]) for each in errors] == [
        (3, "invalid_json", None),
        (4, "unprocessable", "text"),
        (5, "invalid_request", None),
        (6, "invalid_request", "id"),
        (8, "invalid_request", "id"),
    ]
    assert errors[1]["error"]["message"] == "line 4.text is bad"


def test_a_byte_order_mark_is_no_part_of_the_first_line(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"a"\n"b"\n', encoding="utf-8-sig")
    qvl("embed", source, "-o", out, "--url", fake().url)
    assert [row["index"] for row in lines_of(out)] == [0, 1]


def test_a_bad_line_can_stop_the_job_and_be_mended(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ["a", "b", "BAD"]), tmp_path / "out.jsonl"
    options = ("-o", out, "--url", fake().url, "--batch", 1, "--in-flight", 1)
    assert "qvl: line 3.text is bad (--on-error" in qvl(
        "embed", source, *options, "--on-error", "fail", code=2
    )
    assert not out.exists()
    assert "2 rows, 1 bad line left out" in qvl("embed", source, *options)
    assert len(lines_of(out)) == 2


def test_an_error_that_is_no_lines_fault_stops_the_job(
    qvl: Run, fake: Start, source: Path, tmp_path: Path
) -> None:
    url, out = fake().url, tmp_path / "out.jsonl"
    said = qvl("embed", source, "-o", out, "--url", url, "--dimensions", 99, code=1)
    assert said == "qvl: dimensions: too many (invalid_request)\n"
    assert not out.exists()
    qvl("embed", source, "-o", out, "--url", url)  # nothing was answered, so nothing needs to be overwritten


def test_lines_too_large_together_are_sent_alone(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    assert "50 rows" in qvl("embed", source, "-o", tmp_path / "out.jsonl", "--url", fake(most=1).url)


@pytest.mark.parametrize("content", ["", "\n\n", "nothing\n"])
@pytest.mark.parametrize("suffix", ["jsonl", "npz", "parquet"])
def test_no_rows_are_a_valid_file(qvl: Run, fake: Start, tmp_path: Path, content: str, suffix: str) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / f"out.{suffix}"
    source.write_text(content)
    command = ("embed", source, "-o", out, "--url", fake().url)
    for _ in range(2):  # made, and found finished
        said = qvl(*command, code=1 if content.strip() else 0)
        assert "0 rows" in said
        assert ("no line is good; line 1: not JSON: " in said) is bool(content.strip())
    match suffix:
        case "jsonl":
            assert out.read_text() == ""
        case "npz":
            assert np.load(out)["embeddings"].shape[0] == 0
        case _:
            assert pq.read_table(out).num_rows == 0


def test_rerank_scores_each_line(qvl: Run, fake: Start, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": "q1", "query": "a b", "documents": ["x", "a b", {"text": "a"}]},
        {"query": "a", "documents": ["a", "BAD"], "top_n": 1, "instruction": "Judge."},
        {"query": "a"},
        {"query": "a", "documents": [], "id": "empty"},
        {"query": "a", "documents": ["a"], "topn": 3},
        "a string",
    ]
    source, server = write(tmp_path / "in.jsonl", rows), fake()
    options = ("--url", server.url, "--instruction", "For all.")
    qvl("rerank", source, "-o", tmp_path / "out.jsonl", *options)
    for _ in range(2):  # made, and found finished
        said = qvl("rerank", source, "-o", tmp_path / "out.parquet", *options)
        assert "2 rows, 1 document without a score, 4 bad lines left out" in said
    first, second = lines_of(tmp_path / "out.jsonl")
    assert (first["id"], [each["index"] for each in first["results"]]) == ("q1", [1, 2, 0])
    assert first["results"][0]["score"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert (second["id"], [each["index"] for each in second["results"]]) == (1, [0])
    assert {entry["body"]["instruction"] for entry in server.log()} == {"For all.", "Judge."}
    params = [each["error"]["param"] for each in lines_of(tmp_path / "out.jsonl.errors.jsonl")]
    assert params == ["documents", "documents", "topn", None]
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["documents"] for row in table] == [[1, 2, 0], [0]]
    assert [row["errors"] for row in table] == [[], second["errors"]]
    assert (second["errors"][0]["index"], second["errors"][0]["error"]["code"]) == (1, "unprocessable")
    assert "must end in .jsonl or .parquet" in qvl("rerank", source, "-o", "out.npz", *options, code=2)


def test_mistakes_are_one_line(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    url = fake().url
    for arguments, message in [
        ((tmp_path / "no.jsonl", "-o", tmp_path / "out.npz", "--url", url), "No such file"),
        ((source, "-o", tmp_path / "out.csv", "--url", url), "must end in"),
        ((source, "-o", tmp_path / "no" / "out.npz", "--url", url), "there is no folder"),
        ((source, "-o", tmp_path / "out.npz", "--url", url, "--batch", 0), "batch must be at least 1"),
    ]:
        said = qvl("embed", *arguments, code=2)
        assert message in said
        assert said.count("\n") == 1


class Full:
    """An engine that answers nothing before it has refused what is too much at once."""

    def __init__(self) -> None:
        self.admission, self.refused = Admission(Limits().queue_tokens), asyncio.Event()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        try:
            with self.admission.admit(cost(request), request.priority):
                await self.refused.wait()
        except Overloaded:
            self.refused.set()
            raise
        rows = np.zeros((len(request.input), 4), np.float32)
        return EmbedResult(model="m", vectors=rows, usage=Usage(), errors={})


def test_what_is_too_much_at_once_for_its_own_engine_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_LOOK_SECONDS", 0.01)
    engine: Any = Full()
    data = [json.dumps({"video": f"https://h/{i}.mp4"}).encode() for i in range(1000)]
    lines = [Line(i, each, 0) for i, each in enumerate(data)]
    with Work(tmp_path / "out.jsonl", Embedding.files) as work:
        work.begin({})

        async def go() -> None:
            died = asyncio.get_running_loop().create_future()
            task = Embedding(answers.FromEngine(engine, died))
            await run(task, lines, work, JobConfig(), lambda _: None)

        asyncio.run(go())
        assert work.mark.rows == len(lines)


def test_an_engine_that_hangs_ends_the_job(tmp_path: Path) -> None:
    """Its answers never come, and say nothing."""
    engine: Any = Full()

    async def go(work: Work) -> None:
        died = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, died.set_result, "it hangs")
        lines = [Line(0, b'{"text": "a"}', 0)]
        await run(Embedding(answers.FromEngine(engine, died)), lines, work, JobConfig(), lambda _: None)

    with Work(tmp_path / "out.jsonl", Embedding.files) as work, pytest.raises(Unavailable, match="it hangs"):
        work.begin({})
        asyncio.run(asyncio.wait_for(go(work), 60))


@pytest.mark.engine
def test_an_engine_in_this_process_agrees_with_the_server(
    qvl: Run, server: Any, pair: Any, tmp_path: Path
) -> None:
    source = write(
        tmp_path / "in.jsonl", ["a cat", {"text": "a dog", "instruction": "Find it."}, {"colour": 3}]
    )
    own = ("--embedder", pair.embedder, "--dtype", "float32")
    qvl("embed", source, "-o", tmp_path / "own.npz", *own)
    qvl("embed", source, "-o", tmp_path / "served.npz", "--url", server.url)
    ours, served = np.load(tmp_path / "own.npz"), np.load(tmp_path / "served.npz")
    assert ours["ids"].tolist() == served["ids"].tolist() == ["0", "1"]
    np.testing.assert_allclose(ours["embeddings"], served["embeddings"], atol=1e-5)
    errors = [lines_of(tmp_path / f"{name}.npz.errors.jsonl")[0]["error"] for name in ("own", "served")]
    assert errors[0] == errors[1]
