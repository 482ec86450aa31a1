"""Work is refused before it is begun, never for ever, and the count comes back to nothing."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvl.engine import admission as module
from qvl.engine.admission import TEMPLATE_TOKENS, Admission, cost
from qvl.engine.config import MediaConfig
from qvl.engine.errors import Overloaded
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest, Tokens


def test_cost_counts_text_media_and_ids() -> None:
    assert cost(Content(texts=("x" * 400,))) == TEMPLATE_TOKENS + 100
    pages = Content(images=("url", "url"))
    assert cost(pages) == TEMPLATE_TOKENS + 2 * 1800
    assert cost(pages, MediaConfig(max_pixels=256 * 1024)) == TEMPLATE_TOKENS + 2 * 256
    assert cost(EmbedRequest(input=(Tokens(ids=(1, 2, 3)), Tokens(ids=(4,))))) == 4


def test_a_query_is_counted_once_for_all_its_documents() -> None:
    query, document = Content(images=("url",)), Content(texts=("d" * 40,))
    asked = RerankRequest(query=query, documents=(document,) * 10)
    assert cost(asked) == cost(query) + 10 * cost(document)


def test_an_instruction_is_counted_where_it_stands() -> None:
    """In each item that has none of its own; of pairs with one query it is shared, as that is."""
    plain, own = Content(texts=("a",)), Content(texts=("a",), instruction="b" * 40)
    shared = "c" * 4000
    asked = EmbedRequest(input=(plain, own, plain, Tokens(ids=(1,))), instruction=shared)
    assert cost(asked) == 2 * (cost(plain) + 1000) + cost(own) + 1
    ranked = RerankRequest(query=plain, documents=(plain,) * 10, instruction=shared)
    assert cost(ranked) == 11 * cost(plain) + 1000
    assert cost((ranked, ranked)) == 2 * cost(ranked)


def test_few_of_many_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def image_size(source: str) -> tuple[int, int]:
        read.append(source)
        return 320, 320

    monkeypatch.setattr(module, "image_size", image_size)
    items = (Content(images=("a",) * 32),) * 2048
    assert cost(EmbedRequest(input=items)) == 2048 * (TEMPLATE_TOKENS + 32 * 100)
    assert len(read) == module.MOST_HEADERS


def test_over_the_limit_is_refused_with_a_time() -> None:
    admission = Admission(100)
    with admission.admit(60):
        with pytest.raises(Overloaded) as caught, admission.admit(41):
            pass
        assert caught.value.message == (
            "server busy: about 60 tokens are in progress, this request needs about 41, the limit is 100 "
            "(--queue-tokens); ask again after Retry-After"
        )
        with (
            pytest.raises(Overloaded, match="the limit of batch requests is 50"),
            admission.admit(1, "batch"),
        ):
            pass
        assert caught.value.status == 429
        assert 1 <= caught.value.retry_after <= 30
        with admission.admit(40):
            assert admission.held == 100
    assert admission.held == 0


def test_what_is_larger_than_the_limit_comes_in_alone() -> None:
    admission = Admission(100)
    with admission.admit(10_000), pytest.raises(Overloaded), admission.admit(1):
        pass
    with admission.admit(10_000):
        pass


def test_requests_that_cost_nothing_leave_in_any_order() -> None:
    admission = Admission(100)
    first, second = admission.admit(0), admission.admit(0)
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
    assert admission._by_caller == {}


def test_a_failed_request_gives_its_place_back() -> None:
    admission = Admission(100)
    with pytest.raises(ValueError, match="boom"), admission.admit(100):
        raise ValueError("boom")
    assert admission.held == 0


@given(st.lists(st.integers(1, 300), max_size=20), st.integers(1, 500))
def test_never_more_than_the_limit_unless_alone(costs: list[int], limit: int) -> None:
    admission = Admission(limit)
    with ExitStack() as stack:
        taken = []
        for each in costs:
            try:
                stack.enter_context(admission.admit(each))
            except Overloaded:
                continue
            taken.append(each)
            assert admission.held == sum(taken)
            assert admission.held <= limit or len(taken) == 1
    assert admission.held == 0
