"""`qvl batch`: files of OpenAI's batch API, by a server and by an engine of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import Run, lines_of

pytestmark = pytest.mark.engine

REQUESTS = [
    ("a", "/v1/embeddings", {"input": ["a cat", "a dog"], "dimensions": 16}),
    ("b", "/v1/rerank", {"query": "a cat", "documents": ["a cat", "a boat"]}),
    ("no such route", "/v1/chat/completions", {"messages": []}),
    ("no such model", "/v1/embeddings", {"input": "a", "model": "gpt"}),
    ("too wide", "/v1/embeddings", {"input": "a", "dimensions": 100_000}),
    ("no URL", "/v1/embe\ndings", {"input": "a"}),
    ("another method", "/v1/models", {"input": "a"}),
    ("bad item", "/v1/embeddings", {"input": ["a", {"image": "data:image/png;base64,aGk="}]}),
    ("c", "/v2/embed", {"texts": ["a"], "input_type": "search_query", "embedding_types": ["int8"]}),
]


def lines() -> list[str]:
    made = [
        json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})
        for name, url, body in REQUESTS
    ]
    return [
        *made,
        '{"text": "an item"}',
        json.dumps({"custom_id": "get", "method": "GET", "url": "/", "body": 1}),
    ]


@pytest.mark.parametrize("by", ["server", "engine"])
def test_each_is_answered_as_its_route_answers(
    by: str, qvl: Run, server: Any, pair: Any, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(lines()))
    own = ("--embedder", pair.embedder, "--reranker", pair.reranker, "--dtype", "float32", "--enforce-eager")
    options = ("--url", server.url) if by == "server" else own
    said = qvl("batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", *options)
    assert "3 rows, 8 bad lines left out" in said
    rows = {row["custom_id"]: row for row in lines_of(tmp_path / "out.jsonl")}
    assert list(rows) == ["a", "b", "c"]
    assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in rows.values())
    vectors = np.array([each["embedding"] for each in rows["a"]["response"]["body"]["data"]])
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert sorted(each["index"] for each in rows["b"]["response"]["body"]["results"]) == [0, 1]
    assert len(rows["c"]["response"]["body"]["embeddings"]["int8"]) == 1
    errors = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    told = [(each["id"], each["error"]["code"]) for each in errors]
    assert told == [
        ("no such route", "route_not_found"),
        ("no such model", "model_not_found"),
        ("too wide", "invalid_request"),
        ("no URL", "invalid_request"),
        ("another method", "method_not_allowed" if by == "server" else "route_not_found"),
        ("bad item", "unsupported_media"),
        (9, "invalid_request"),
        ("get", "invalid_request"),
    ]
    assert errors[5]["error"]["param"] == "body.input[1].image"
    assert "finished already" in qvl("batch", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", *options)
