"""The rerank and score dialects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from qvl.engine.dialects import fields, records, rerank, vllm
from qvl.engine.dialects.fields import decode
from qvl.engine.dialects.ranking import NOT_ECHOED
from qvl.engine.errors import BadRequest, Unprocessable
from qvl.engine.protocol import Content, RerankRequest, RerankResult, Usage
from qvl.engine.response import dump

LOGITS = np.array([-1, 50, 2, 60, 2], np.float32)
RESULT = RerankResult(model="m", logits=LOGITS, usage=Usage(text_tokens=9))
DOCUMENTS = [
    "a",
    {"text": "b"},
    {"image": "http://h/x.png"},
    {"content": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]},
    {"text": "e", "video": [["AAAA", "file:///x.png"]]},
]
FULL = {"query": "q", "documents": DOCUMENTS}


def ask(dialect: str, **fields: Any) -> tuple[RerankRequest, Any]:
    """The parsed request, and the answer rendered from `RESULT`, as JSON reads it."""
    body = decode(rerank.RerankBody, dump({**FULL, **fields}))
    request = rerank.parse(body)
    told: dict[str, Any] = {"v1": {}, "v2": {"version": "2"}, "vllm": {"echoes": True}}[dialect]
    return request, json.loads(dump(rerank.render(body, request, RESULT, **told)))


def asked(**fields: Any) -> RerankRequest:
    return rerank.parse(decode(rerank.RerankBody, dump({"query": "q", **fields})))


@pytest.mark.parametrize("dialect", ["v1", "v2", "vllm"])
class TestAll:
    def test_documents(self, dialect: str) -> None:
        request, _ = ask(dialect)
        assert request.query == Content(texts=("q",), where="query")
        assert [each.where for each in request.documents] == [f"documents[{i}]" for i in range(5)]
        assert request.documents[3].images == ("data:image/png;base64,AAAA",)
        assert request.documents[4].videos == (("AAAA", "file:///x.png"),)

    def test_order_is_by_logit_and_stable(self, dialect: str) -> None:
        """Both 50 and 60 round to the score 1.0."""
        _, answer = ask(dialect)
        assert [entry["index"] for entry in answer["results"]] == [3, 1, 2, 4, 0]
        scores = [entry["relevance_score"] for entry in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score <= 1 for score in scores)

    @pytest.mark.parametrize(("top_n", "count"), [(1, 1), (5, 5), (99, 5), (None, 5)])
    def test_top_n(self, dialect: str, top_n: int | None, count: int) -> None:
        assert len(ask(dialect, top_n=top_n)[1]["results"]) == count

    def test_echo(self, dialect: str) -> None:
        _, answer = ask(dialect, return_documents=True)
        echoed = {entry["index"]: entry["document"] for entry in answer["results"]}
        assert echoed == {
            0: {"text": "a"},
            1: {"text": "b"},
            2: {"text": "", "image": ["http://h/x.png"]},
            3: {"text": "", "image": [NOT_ECHOED]},
            4: {"text": "e", "video": [NOT_ECHOED, "file:///x.png"]},
        }

    def test_no_echo(self, dialect: str) -> None:
        assert not any("document" in entry for entry in ask(dialect, return_documents=False)[1]["results"])

    def test_default_echo(self, dialect: str) -> None:
        echoes = ["document" in entry for entry in ask(dialect)[1]["results"]]
        assert echoes == [dialect == "vllm"] * 5

    def test_tokens_of_a_document(self, dialect: str) -> None:
        assert ask(dialect, max_tokens_per_doc=9)[0].max_tokens_per_document == 9


@pytest.mark.parametrize("name", ["documents", "texts"])
@pytest.mark.parametrize("alone", ["a", "", {"text": "a"}, {"content": [{"type": "text", "text": "a"}] * 2}])
def test_a_document_alone_is_one_document(name: str, alone: Any) -> None:
    assert [each.where for each in asked(**{name: alone}).documents] == [name]


@pytest.mark.parametrize(
    "flag", [{"raw_scores": True}, {"use_activation": False}, {"use_activation": False, "raw_scores": True}]
)
def test_raw_scores(flag: dict[str, bool]) -> None:
    results = ask("v1", **flag)[1]["results"]
    assert [entry["relevance_score"] for entry in results] == [60, 50, 2, 2, -1]


@pytest.mark.parametrize("flag", [True, False])
def test_scores_are_raw_or_not(flag: bool) -> None:
    with pytest.raises(BadRequest, match="`raw_scores` and `use_activation` contradict each other"):
        asked(documents=["a"], raw_scores=flag, use_activation=flag)


def test_vllms_zeros_mean_all() -> None:
    request, answer = ask("vllm", top_n=0, max_tokens_per_doc=0, max_tokens_per_query=0)
    assert request.max_tokens_per_document is None
    assert len(answer["results"]) == 5


def test_meta_of_cohere() -> None:
    for dialect, version in (("v1", "1"), ("v2", "2")):
        meta = ask(dialect)[1]["meta"]
        assert (meta["api_version"], meta["billed_units"]) == ({"version": version}, {"search_units": 1})
    assert (
        ask("v1", max_chunks_per_doc=3, overlap_tokens=80, rank_fields=["text"])[1]["usage"]["total_tokens"]
        == 9
    )


def test_failed_documents_follow() -> None:
    wrong = Unprocessable("no", param="documents[1].image")
    result = RerankResult(
        model="m", logits=np.array([0, -np.inf], np.float32), usage=Usage(), errors={1: wrong}
    )
    fields = dump({"query": "q", "documents": ["a", "b"], "on_error": "skip", "top_n": 1})
    body = decode(rerank.RerankBody, fields)
    answer: Any = rerank.render(body, rerank.parse(body), result)
    assert [entry["index"] for entry in answer["results"]] == [0, 1]
    assert answer["results"][1] == {"index": 1, "error": wrong.entry()}


class TestScore:
    @staticmethod
    def parse(**fields: Any) -> tuple[RerankRequest, ...]:
        return vllm.parse_score(decode(vllm.ScoreBody, dump(fields)))

    @pytest.mark.parametrize(
        ("left", "right"),
        [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")],
    )
    def test_spellings(self, left: str, right: str) -> None:
        (request,) = self.parse(**{left: "a", right: ["b", "c"]})
        assert (request.query.texts, request.query.where) == (("a",), left)
        assert [each.where for each in request.documents] == [f"{right}[0]", f"{right}[1]"]

    def test_one_query_in_a_list(self) -> None:
        assert len(self.parse(queries=["a"], documents=["b", "c"])) == 1

    def test_pairs(self) -> None:
        requests = self.parse(queries=["a", "b"], documents=["c", {"text": "d"}], instruction="i")
        assert [(each.query.texts, each.documents[0].texts) for each in requests] == [
            (("a",), ("c",)),
            (("b",), ("d",)),
        ]
        assert {each.instruction for each in requests} == {"i"}

    def test_content(self) -> None:
        parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "t"}]
        (request,) = self.parse(queries="a", documents={"content": parts})
        assert (request.documents[0].images, request.documents[0].texts) == (("x",), ("t",))

    def test_lengths_must_fit(self) -> None:
        with pytest.raises(BadRequest, match="3 queries and 2 documents"):
            self.parse(queries=["a"] * 3, documents=["b"] * 2)

    def test_rendering(self) -> None:
        body = decode(vllm.ScoreBody, dump({"queries": "a", "documents": ["b"]}))
        wrong = Unprocessable("no")
        failed = RerankResult(
            model="m", logits=np.array([-np.inf], np.float32), usage=Usage(), errors={0: wrong}
        )
        answer = vllm.render_score(body, [RESULT, failed])
        assert [entry["index"] for entry in answer["data"]] == list(range(6))
        assert answer["data"][0]["score"] == pytest.approx(0.26894142)
        assert answer["data"][5] == {"index": 5, "object": "error", "error": wrong.entry()}
        assert answer["usage"]["total_tokens"] == 9


def test_a_record_of_many_keys_is_no_misspelt_item() -> None:
    """To compare each of them would take a server's time."""
    few = {"text": "a", "texts": "b"}
    with pytest.raises(BadRequest, match="did you mean `text`"):
        asked(documents=[few])
    many = few | {f"key {i}": i for i in range(records.MOST_MISSPELT)}
    assert asked(documents=[many]).documents[0].texts == ("a",)


@pytest.mark.parametrize("key", ["min_price", "total_pages", "max_size", "megapixels"])
def test_a_records_own_numbers_are_no_misspelt_limits(key: str) -> None:
    assert asked(documents=[{"text": "a", "title": "b", key: 5}]).documents[0].texts == ("a",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (["title"], "documents[0]"),
        (["text", "title", "year"], "documents[0].year"),
        (["text", "tags"], "documents[0].tags"),
        (["text", "image"], "rank_fields"),
        (["video"], "rank_fields"),
    ],
)
def test_fields_to_rank_by_are_texts(fields: list[str], param: str) -> None:
    record = {"text": "a", "title": None, "year": 1999, "tags": ["b"], "image": "http://h/x.png"}
    with pytest.raises(BadRequest) as caught:
        ask("v1", documents=[record], rank_fields=fields)
    assert caught.value.param == param
    assert ask("v1", documents=[record] * 5, rank_fields=["text", "title"])[0].documents[0].texts == ("a",)


def test_a_callers_long_keys_are_not_kept() -> None:
    before = fields._is_near.cache_info().currsize
    long = {"text": "a", "k" * 1000: "v"}
    asked(documents=[long])
    assert fields._is_near.cache_info().currsize == before
