"""`/v1/embeddings`: options in, numbers out."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest

from qvl.engine.dialects import openai, tasks, vectors
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest, Unprocessable
from qvl.engine.protocol import EmbedRequest, EmbedResult, Usage
from qvl.engine.response import dump, encode

ROWS = np.eye(2, 8, dtype=np.float32)
RESULT = EmbedResult(model="m", vectors=ROWS, usage=Usage(text_tokens=3, visual_tokens=4, images=1))


def body(**fields: Any) -> openai.EmbeddingsBody:
    return decode(openai.EmbeddingsBody, dump({"input": "a", **fields}))


def parse(**fields: Any) -> EmbedRequest:
    return openai.parse(body(**fields))


def render(**fields: Any) -> Any:
    return openai.render(body(**fields), RESULT, partial(encode, RESULT.vectors))


def test_defaults() -> None:
    request = parse()
    assert (request.model, request.instruction, request.dimensions) == (None, None, None)
    assert (request.truncate, request.max_tokens, request.on_error) == (True, None, "fail")


def test_options_pass_through() -> None:
    request = parse(model="m", dimensions=4, instruction="i", on_error="skip", truncate=False)
    assert (request.model, request.dimensions, request.instruction) == ("m", 4, "i")
    assert (request.on_error, request.truncate) == ("skip", False)


@pytest.mark.parametrize(("value", "expected"), [(7, 7), (-1, None), (None, None)])
def test_truncation_to_tokens(value: int | None, expected: int | None) -> None:
    assert parse(truncate_prompt_tokens=value).max_tokens == expected


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"truncate": True}, True),
        ({"truncate": "END"}, True),
        ({"truncate": "NONE"}, False),
        ({"truncation": True}, True),
        ({"truncation": False}, False),
        ({"truncate": True, "truncation": False}, False),
    ],
)
def test_what_is_cut(fields: dict[str, Any], cut: bool) -> None:
    assert parse(**fields).truncate is cut


def test_the_start_is_never_cut() -> None:
    with pytest.raises(BadRequest, match="use END or NONE"):
        parse(truncate="START")


@pytest.mark.parametrize("field", ["task", "input_type", "prompt_name"])
@pytest.mark.parametrize("task", get_args(tasks.Task))
def test_tasks(field: str, task: tasks.Task) -> None:
    assert parse(**{field: task}).instruction == tasks.INSTRUCTIONS[task]
    assert parse(**{field: task}, instruction="mine").instruction == "mine"


def test_every_task_is_documented() -> None:
    assert all(f"`{task}`" in (tasks.__doc__ or "") for task in get_args(tasks.Task))


def test_vllms_instruction() -> None:
    assert parse(chat_template_kwargs={"instruction": "i"}).instruction == "i"


@pytest.mark.parametrize(
    ("asked", "priority"),
    [(None, "interactive"), (0, "interactive"), (-3, "interactive"), (1, "batch"), ("batch", "batch")],
)
def test_priority(asked: object, priority: str) -> None:
    assert parse(priority=asked).priority == priority


def test_fields_that_change_nothing() -> None:
    assert (
        parse(
            user="u",
            priority=-3,
            request_id="r",
            rid="r",
            metadata={"trace": "t"},
            drop_params=True,
            cache_salt="s",
            add_special_tokens=False,
            add_generation_prompt=True,
            continue_final_message=False,
            chat_template=None,
            mm_processor_kwargs={},
            media_io_kwargs={},
            late_chunking=False,
            return_multivector=False,
            normalize=True,
            normalized=True,
            use_activation=True,
            padding="do_not_pad",
            truncation_side="right",
            endianness="little",
        )
        == parse()
    )


@pytest.mark.parametrize("field", ["late_chunking", "return_multivector"])
def test_one_vector_for_each_item(field: str) -> None:
    with pytest.raises(BadRequest, match=f"`{field}` is not supported: each item has one vector"):
        parse(**{field: True})


@pytest.mark.parametrize(
    ("fields", "dtype", "as_base64"),
    [
        ({}, "float32", False),
        ({"encoding_format": "float"}, "float32", False),
        ({"encoding_format": "base64"}, "float32", True),
        ({"encoding_format": "base64", "embed_dtype": "float16"}, "float16", True),
        ({"embed_dtype": "float32"}, "float32", False),
        ({"embedding_type": "base64"}, "float32", True),
        ({"embedding_type": "base64", "output_dtype": "float"}, "float32", True),
        ({"embedding_type": "float", "encoding_format": "base64"}, "float32", True),
        ({"embedding_type": "int8", "encoding_format": "float"}, "int8", False),
        ({"embedding_type": ["ubinary"]}, "ubinary", False),
        ({"embedding_type": []}, "float32", False),
        ({"output_dtype": "int8"}, "int8", False),
        ({"output_dtype": "int8", "embed_dtype": "int8", "encoding_format": "base64"}, "int8", True),
    ],
)
def test_kinds(fields: dict[str, Any], dtype: vectors.Dtype, as_base64: bool) -> None:
    assert openai.kind(body(**fields)) == vectors.Kind(dtype, as_base64)


@pytest.mark.parametrize(
    "fields",
    [
        {"embed_dtype": "int8", "embedding_type": "base64"},
        {"encoding_format": "float", "embedding_type": "base64"},
        {"instruction": "A", "chat_template_kwargs": {"instruction": "B"}},
        {"task": "retrieval.passage", "input_type": "query"},
        {"input_type": "document", "prompt_name": "code.query"},
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="contradict each other; keep one") as caught:
        parse(**fields)
    assert caught.value.code == "conflicting_fields"


@pytest.mark.parametrize(
    ("fields", "instruction"),
    [
        ({"instruction": "A", "chat_template_kwargs": {"instruction": "A"}}, "A"),
        ({"instruction": "A", "chat_template_kwargs": {}}, "A"),
        ({"instruction": "A", "task": "retrieval.passage", "input_type": "query"}, "A"),
        ({"task": "retrieval.query", "input_type": "query", "prompt_name": None}, tasks.QUERY),
        ({"task": "text-matching", "input_type": "query"}, tasks.MATCH),
    ],
)
def test_fields_that_agree_are_not(fields: dict[str, Any], instruction: str) -> None:
    assert parse(**fields).instruction == instruction


def test_rendering() -> None:
    answer = render()
    assert answer["object"] == "list"
    assert answer["model"] == "m"
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    np.testing.assert_array_equal([entry["embedding"] for entry in answer["data"]], ROWS)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 7
    details = answer["usage"]["prompt_tokens_details"]
    assert (details["text_tokens"], details["visual_tokens"], details["images"]) == (3, 4, 1)


def test_rendering_base64_as_openais_sdk_reads_it() -> None:
    data = render(encoding_format="base64")["data"]
    read = np.frombuffer(base64.b64decode(data[1]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(read, ROWS[1])


def test_failed_items_keep_their_place() -> None:
    failed = Unprocessable("no", param="input[0].image", code="undecodable_media")
    result = EmbedResult(model="m", vectors=ROWS, usage=Usage(), errors={0: failed})
    data = openai.render(body(), result, partial(encode, ROWS))["data"]
    assert data[0] == {"object": "error", "index": 0, "error": failed.entry()}
    assert data[1]["object"] == "embedding"
