"""Items, parts and messages to `Content`."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

import pytest

from qvl.engine.dialects import openai
from qvl.engine.dialects.fields import decode
from qvl.engine.dialects.items import looks_like_image
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, EmbedRequest, Tokens
from qvl.engine.response import dump

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(20)).decode()
WEBP = base64.b64encode(b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(20)).decode()
AVI = base64.b64encode(b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(20)).decode()
AVIF = base64.b64encode(b"\x00\x00\x00\x18ftypavif" + bytes(20)).decode()
MP4 = base64.b64encode(b"\x00\x00\x00\x18ftypmp42" + bytes(20)).decode()


def parse(**body: Any) -> EmbedRequest:
    return openai.parse(decode(openai.EmbeddingsBody, dump(body)))


def one(item: Any) -> Content:
    (content,) = parse(input=[item]).input
    assert isinstance(content, Content)
    assert content.where == "input[0]"
    return content


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a", {"texts": ("a",)}),
        ("", {"texts": ("",)}),
        ({}, {}),
        ({"text": None, "image": [], "video": []}, {}),
        ({"text": ["a", "b"]}, {"texts": ("a", "b")}),
        ({"image": "x"}, {"images": ("x",)}),
        ({"image": ["x", {"url": "y"}]}, {"images": ("x", "y")}),
        ({"text": "a", "instruction": "i"}, {"texts": ("a",), "instruction": "i"}),
        ({"video": "v", "fps": 2, "max_frames": 8}, {"videos": ("v",), "fps": 2.0, "max_frames": 8}),
        ({"video": ["a.mp4", "b.mp4"]}, {"videos": ("a.mp4", "b.mp4")}),
        ({"video": [["x", "y"]]}, {"videos": (("x", "y"),)}),
        ({"video": [["x"], "v.mp4"]}, {"videos": (("x",), "v.mp4")}),
        ({"video": [PNG, "y"]}, {"videos": ((PNG, "y"),)}),
        ({"video": [{"url": "http://h/a.JPG?x=1"}, "y"]}, {"videos": (("http://h/a.JPG?x=1", "y"),)}),
        ({"video": [MP4, MP4]}, {"videos": (MP4, MP4)}),
        # Parts without `content`.
        ({"type": "text", "text": "a"}, {"texts": ("a",)}),
        ({"type": "image_url", "image_url": {"url": "x"}}, {"images": ("x",)}),
        ({"type": "video_url", "video_url": "v"}, {"videos": ("v",)}),
        ({"type": "image", "image": "x"}, {"images": ("x",)}),
    ],
)
def test_native_items(item: Any, expected: dict[str, Any]) -> None:
    assert one(item) == Content(where="input[0]", **expected)


def test_parts_fold_into_the_reference_order() -> None:
    parts = [
        {"type": "text", "text": "1"},
        {"type": "image_url", "image_url": {"url": "i1", "detail": "high"}},
        {"type": "video", "video": ["f1", "f2"]},
        {"type": "text", "text": "2"},
        {"type": "image_url", "image_url": "i2"},
        {"type": "image", "image": "i3"},
        {"type": "video_url", "video_url": {"url": "v1"}},
        {"type": "image_base64", "image_base64": "i4"},
        {"type": "video_base64", "video_base64": "v2"},
        {"type": "video", "video": "v3"},
    ]
    assert one({"content": parts, "instruction": "i", "fps": 3}) == Content(
        videos=(("f1", "f2"), "v1", "v2", "v3"),
        images=("i1", "i2", "i3", "i4"),
        texts=("1", "2"),
        instruction="i",
        fps=3.0,
        where="input[0]",
    )


def test_vllms_name_for_a_medium_changes_nothing() -> None:
    part = {"type": "image_url", "image_url": {"url": "x"}, "uuid": "u"}
    assert one({"content": [part]}).images == ("x",)


def test_content_as_a_string() -> None:
    assert one({"content": "a"}).texts == ("a",)


@pytest.mark.parametrize(
    ("source", "image"),
    [
        ("data:image/png;base64,AAAA", True),
        ("DATA:IMAGE/png;base64,AAAA", True),
        ("data:video/mp4;base64,AAAA", False),
        ("https://h/a.png", True),
        ("https://h/a.jpeg?size=1#x", True),
        ("file:///a/b.WEBP", True),
        ("file:///a/b.jfif", True),
        ("https://h/a.mp4", False),
        ("https://h/a.mp4?poster=a.png", False),
        ("https://[bad/a.png", False),
        (PNG, True),
        (JPEG, True),
        (WEBP, True),
        (AVIF, True),
        (AVI, False),
        (MP4, False),
        ("", False),
        ("not base64 at all", False),
        ("é", False),
    ],
)
def test_what_looks_like_an_image(source: str, image: bool) -> None:
    assert looks_like_image(source) is image


class TestInput:
    def test_a_string(self) -> None:
        assert parse(input="a").input == (Content(texts=("a",), where="input"),)

    def test_an_item_alone(self) -> None:
        assert parse(input={"text": "a"}).input == (Content(texts=("a",), where="input"),)

    def test_a_string_that_is_a_medium(self) -> None:
        image, film = "data:image/png;base64,aGk=", "data:video/mp4;base64,aGk="
        read = parse(input=[image, film, {"text": image}, f"see {image}"]).input
        assert [(each.images, each.videos, each.texts) for each in read if isinstance(each, Content)] == [
            ((image,), (), ()),
            ((), (film,), ()),
            ((), (), (image,)),
            ((), (), (f"see {image}",)),
        ]

    @pytest.mark.parametrize("start", ["data:{}/x", "DATA:{}/x", " \n data:{}/X;name=a"])
    @pytest.mark.parametrize("coding", [";base64,aGk=", ";Base64,aGk=", ";name=a.png;base64,aGk="])
    @pytest.mark.parametrize("kind", ["image", "Image", "video", "VIDEO"])
    def test_a_medium_in_any_case(self, start: str, coding: str, kind: str) -> None:
        source = start.format(kind) + coding
        found = one(source)
        assert (found.images if kind.lower() == "image" else found.videos) == (source.lstrip(),)
        assert not found.texts

    def test_a_pdf_is_an_image(self) -> None:
        assert one("data:Application/PDF;base64,aGk=#page=2").images

    @pytest.mark.parametrize(
        "kind", ["", "audio/wav", "application/octet-stream", "text/plain;charset=utf-8"]
    )
    def test_base64_of_anything_else_is_no_text(self, kind: str) -> None:
        with pytest.raises(
            BadRequest, match=r'image, a video or a PDF .*if it is a text, send \{"text"'
        ) as caught:
            parse(input=["a", f"data:{kind};base64,aGk="])
        assert (caught.value.param, caught.value.code) == ("input[1]", "not_a_medium")

    @pytest.mark.parametrize(
        "text",
        [
            "data:video/mp4 files are big, right?",
            "data:image/png, or data:image/png;base64,aGk=",
            "data: what is ;base64,",
            "data:,;base64,",
            "data:image/svg+xml,<svg/>",
            "metadata:image/png;base64,aGk=",
        ],
    )
    def test_what_only_speaks_of_them_is_a_text(self, text: str) -> None:
        assert one(text).texts == (text,)

    def test_token_ids(self) -> None:
        assert parse(input=[1, 2]).input == (Tokens(ids=(1, 2), where="input"),)
        assert parse(input=[[1], [2, 3]]).input == (
            Tokens(ids=(1,), where="input[0]"),
            Tokens(ids=(2, 3), where="input[1]"),
        )

    @pytest.mark.parametrize(("given", "where"), [([1, "a"], "input"), (["a", [1], 2], "input[2]")])
    def test_a_token_id_alone_is_no_item(self, given: Any, where: str) -> None:
        with pytest.raises(BadRequest, match="token id") as caught:
            parse(input=given)
        assert caught.value.param == where

    @pytest.mark.parametrize("given", [[1, 2], [[1]], ["a", [1]]])
    @pytest.mark.parametrize("told", [{"instruction": "A"}, {"chat_template_kwargs": {"instruction": "A"}}])
    def test_token_ids_have_no_place_for_an_instruction(self, given: Any, told: dict[str, Any]) -> None:
        with pytest.raises(BadRequest, match="token ids are taken as they are") as caught:
            parse(input=given, **told)
        assert (caught.value.param, caught.value.code) == ("instruction", "unsupported_field")

    @pytest.mark.parametrize("told", ["input_type", "task", "prompt_name"])
    def test_a_task_beside_token_ids_is_what_clients_send(self, told: str) -> None:
        assert parse(input=[1, 2], **{told: "query"}).input == parse(input=[1, 2]).input


class TestMessages:
    SYSTEM: ClassVar[dict[str, Any]] = {"role": "system", "content": [{"type": "text", "text": "Find it."}]}
    USER: ClassVar[dict[str, Any]] = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "a"}],
    }
    EMPTY: ClassVar[dict[str, Any]] = {"role": "assistant", "content": [{"type": "text", "text": ""}]}

    def test_vllms_example(self) -> None:
        """Its own example for this model, with the flags that it needs there."""
        request = parse(
            messages=[self.SYSTEM, self.USER, self.EMPTY],
            continue_final_message=True,
            add_special_tokens=True,
            encoding_format="float",
        )
        assert request.input == (
            Content(images=("x",), texts=("a",), instruction="Find it.", where="messages"),
        )

    def test_a_batch(self) -> None:
        request = parse(messages=[[self.USER], [self.SYSTEM, {"role": "user", "content": "b"}]])
        assert request.input == (
            Content(images=("x",), texts=("a",), where="messages[0]"),
            Content(texts=("b",), instruction="Find it.", where="messages[1]"),
        )

    @pytest.mark.parametrize("content", [None, "", []])
    def test_an_empty_user_message_is_an_empty_item(self, content: Any) -> None:
        (item,) = parse(messages=[{"role": "user", "content": content}]).input
        assert isinstance(item, Content)
        assert item.images == item.videos == ()
        assert "".join(item.texts) == ""

    @pytest.mark.parametrize(
        "turns",
        [
            [USER, SYSTEM],
            [SYSTEM, SYSTEM, USER],
            [EMPTY, USER],
            [USER, EMPTY, EMPTY],
            [{"role": "system", "content": USER["content"]}, USER],
        ],
    )
    def test_other_turns_are_refused(self, turns: list[Any]) -> None:
        with pytest.raises(BadRequest, match=r"^messages\[\d\]: "):
            parse(messages=turns)
