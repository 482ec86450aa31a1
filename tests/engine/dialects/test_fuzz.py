"""Whatever arrives, a dialect answers with a request or with a `QvlError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvl.engine.dialects import cohere, dashscope, nvidia, openai, rerank, tei, tokenize, vllm, voyage
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import EmbedRequest, RerankRequest

DIALECTS: list[tuple[type[Body], Callable[[Any], Any]]] = [
    (openai.EmbeddingsBody, openai.parse),
    (rerank.RerankBody, rerank.parse),
    (cohere.EmbedBody, cohere.parse_embed),
    (vllm.ScoreBody, vllm.parse_score),
    (voyage.EmbedBody, voyage.parse),
    (tei.EmbedBody, tei.parse_embed),
    (tei.SimilarityBody, tei.parse_similarity),
    (dashscope.EmbedBody, dashscope.parse_embed),
    (dashscope.RerankBody, dashscope.parse_rerank),
    (nvidia.RankingBody, nvidia.parse),
    (tokenize.TokenizeBody, tokenize.parse),
]
WORDS = [
    "text",
    "image",
    "video",
    "content",
    "type",
    "image_url",
    "url",
    "role",
    "user",
    "system",
    "fps",
    "a",
    "",
]

words = st.sampled_from(WORDS)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def outcome(dialect: tuple[type[Body], Callable[[Any], Any]], raw: bytes) -> object:
    body, parse = dialect
    try:
        return parse(decode(body, raw))
    except BadRequest as error:
        assert error.status == 400
        assert 0 < len(error.message) < 2000
        return error


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each[0].__module__ + each[0].__name__)
class TestEveryDialect:
    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_its_fields_with_any_values(self, dialect: Any, data: st.DataObject) -> None:
        names = st.sampled_from([*dialect[0].__struct_fields__, "inputt"])
        fields = data.draw(st.dictionaries(names, values, max_size=4))
        found = outcome(dialect, json.dumps(fields).encode())
        assert isinstance(found, (EmbedRequest, RerankRequest, tuple, BadRequest))

    @settings(max_examples=50, deadline=None)
    @given(
        raw=st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ud8ntrue01e9', max_size=40).map(str.encode)
    )
    def test_any_bytes(self, dialect: Any, raw: bytes) -> None:
        outcome(dialect, raw)
