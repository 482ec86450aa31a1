"""Errors say what would have been accepted."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from msgspec import inspect

from qvl.engine.dialects import fields, openai, rerank, search
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.errors import BadRequest
from qvl.engine.response import dump


def refusal(body: Any, kind: Any = openai.EmbeddingsBody) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode(kind, dump(body))
    return caught.value


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"imput": 1}, "imput", "unknown field `imput`; did you mean `input`?"),
        (
            {"input": [{"zzz": 1}]},
            "input[0].zzz",
            "known fields: bytes, content, fps, image, image_url, instruction, max_frames, max_pixels, ",
        ),
        (
            {"input": ["a", {"content": [{"type": "text", "txt": 1}]}]},
            "input[1].content[0].txt",
            "unknown field `txt`; did you mean `text`?",
        ),
        (
            {"input": [{"content": [{"type": "image_ur"}]}]},
            "input[0].content[0].type",
            "`image_ur` is not accepted; did you mean `image_url`?",
        ),
        (
            {"encoding_format": "hex"},
            "encoding_format",
            "`hex` is not accepted; accepted: base64, binary, float",
        ),
        ({"input": [1.5]}, "input[0]", "input[0]: Expected `int | str | object | array`, got `float`"),
        ({"messages": [[{"role": "usr"}]]}, "messages[0][0].role", "did you mean `user`?"),
        ({"chat_template": "x"}, "chat_template", "is not supported: the template is part of the model"),
        ([], None, "the body: Expected `object`, got `array`"),
    ],
)
def test_messages(body: Any, param: str | None, message: str) -> None:
    error = refusal(body)
    assert error.param == param
    assert message in error.message


@pytest.mark.parametrize(
    "text", ["\\ud800", "\\uD800a", "\\udbff\\n", "\\udc00", "\\ud800\\ud800", "\\ud83d and more text"]
)
def test_half_a_character(text: str) -> None:
    with pytest.raises(BadRequest, match="half of a surrogate pair") as caught:
        decode(openai.EmbeddingsBody, b'{"input":"%b"}' % text.encode())
    assert caught.value.code == "invalid_json"


def test_a_byte_order_mark_is_told() -> None:
    with pytest.raises(BadRequest, match="begins with a byte order mark") as caught:
        decode(openai.EmbeddingsBody, b'\xef\xbb\xbf{"input":"a"}')
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    "body", [b'{"input":"a', b'{"input":"\\ud83d', b'{"input":"\\ud83d\\ude00', b'{"input":"a"']
)
def test_a_body_that_is_cut(body: bytes) -> None:
    with pytest.raises(BadRequest, match="Input data was truncated"):
        decode(openai.EmbeddingsBody, body)


@pytest.mark.parametrize(
    ("rules", "param"),
    [
        (b'{"year": null}', "filter.year"),
        (b'{"kind": 1, "year": {"gte": true}}', "filter.year.gte"),
        (b'{"kind": 1, "year": [1, {}]}', "filter.year[1]"),
        (b'{"kind": 1, "year": 1e999}', "filter[...]"),
    ],
)
def test_the_field_of_a_filter_is_named(rules: bytes, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        search.parse(decode(search.SearchBody, b'{"query": "a", "filter": %b}' % rules))
    assert caught.value.param == param


def test_what_bodies_may_be_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes milliseconds, and a bad body is cheap to send."""

    class Fresh(Body):
        number: int

    looked: list[type] = []

    def type_info(kind: type) -> inspect.Type:
        looked.append(kind)
        return inspect.StructType(Fresh, ())

    monkeypatch.setattr(fields.inspect, "type_info", type_info)
    for _ in range(3):
        refusal({"number": "1"}, Fresh)
    assert looked == [Fresh]


def test_a_missing_field_is_named() -> None:
    error = refusal({"documents": ["a"]}, rerank.RerankBody)
    assert (error.param, error.code) == ("query", "missing_field")


def test_long_names_are_not_repeated_in_full() -> None:
    assert len(refusal({"x" * 100_000: 1}).message) < 1500


@pytest.mark.parametrize(
    "module", ["items", "messages", "openai", "rerank", "cohere", "vllm", "voyage", "tei"]
)
def test_dialects_load_nothing_heavy(module: str) -> None:
    code = f"import sys, qvl.engine.dialects.{module}; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


HEAVY = ("starlette", "torch", "vllm", "uvicorn", "transformers")
