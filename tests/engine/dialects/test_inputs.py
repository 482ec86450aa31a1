"""vLLM's messages in `input`: `EmbeddingChatInputRequest`, `entrypoints/pooling/embed/protocol.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qvl.engine.dialects import openai
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import EmbedRequest
from qvl.engine.response import dump

SYSTEM = {"role": "system", "content": "Find it."}
USER = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "a"}],
}
EMPTY = {"role": "assistant", "content": ""}


def parse(**fields: Any) -> EmbedRequest:
    return openai.parse(decode(openai.EmbeddingsBody, dump(fields)))


@pytest.mark.parametrize(
    "given",
    [
        [{"role": "user", "content": "hello"}],
        [SYSTEM, {**USER, "name": "n"}, EMPTY],
        [[USER], [SYSTEM, {"role": "user", "content": "b"}, EMPTY]],
        [[{"role": "user"}]],
    ],
)
def test_input_is_messages(given: Any) -> None:
    wanted = parse(messages=given)
    items = tuple(replace(each, where=each.where.replace("messages", "input")) for each in wanted.input)
    assert parse(input=given) == replace(wanted, input=items)
    assert parse(input=given, modality="image") == parse(input=given)


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ([USER, "a"], "input[1]", "each has a `role`"),
        ([USER, {"text": "a"}], "input[1]", "each has a `role`"),
        ([USER, [USER]], "input", "not a mixture"),
        ([[USER], USER], "input", "not a mixture"),
        ([[USER], [1, 2]], "input[1][0]", "each has a `role`"),
        ([[USER, 1]], "input[0][1]", "each has a `role`"),
        ([[1, USER]], "input[0]", "nothing but integers"),
        ([[{"text": "a"}]], "input[0]", "objects with a `role`"),
        (["a", USER], "input[1]", "messages stand in a list of them"),
        ([{"text": "a", "name": "n"}], "input[0]", "messages stand in a list of them"),
        (USER, "input", "messages stand in a list of them"),
        ([USER, USER], "input[1]", "this user message has no place here"),
        ([{**USER, "fps": 1}], "input[0].fps", "a message has no `fps`"),
        ([[{"role": "user", "text": "a"}]], "input[0][0].text", "a message has no `text`"),
        ([{"role": "tool", "content": "a"}], "input[0].role", "accepted: assistant, system, user"),
    ],
)
def test_what_is_neither_is_refused(given: Any, param: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        parse(input=given)
    assert caught.value.param == param
