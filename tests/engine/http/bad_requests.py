"""Bad requests, each with the answer it must get; `MEDIA` needs an engine that reads media.

Run against the stand-in by `test_bad_requests.py`, and against the real server by the same file.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Bad:
    name: str
    route: str
    body: Any
    """Sent as JSON, or as it is when it is bytes."""
    status: int
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def png(width: int, height: int) -> bytes:
    """A true one-bit PNG of one colour: 100 megapixels are some 12 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(height * (width // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").save(out, "JPEG")
    return out.getvalue()


def url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


E, R, S = "/v1/embeddings", "/v1/rerank", "/score"
DEEP = 100_000
INVALID, UNKNOWN, MISSING = "invalid_request", "unknown_field", "missing_field"
CONFLICT, UNSUPPORTED, JSON = "conflicting_fields", "unsupported_field", "invalid_json"
PART = {"type": "text", "text": "x"}
USER = {"role": "user", "content": "x"}

SHAPES = (
    Bad("empty body", E, b"", 400, JSON),
    Bad("not JSON", E, b"{input: 1}", 400, JSON),
    Bad("cut JSON", E, b'{"input": "a', 400, JSON),
    Bad("two JSON values", E, b'{"input": "a"}{}', 400, JSON),
    Bad("a list", E, [], 400, INVALID),
    Bad("null", E, None, 400, INVALID),
    Bad("a byte order mark", E, b'\xef\xbb\xbf{"input": "a"}', 400, JSON),
    Bad("invalid UTF-8", E, b'{"input": "\xff\xfe"}', 400, JSON),
    Bad("half a surrogate pair", E, b'{"input": "\\ud800"}', 400, JSON),
    Bad("deep nesting", E, b'{"input": ' + b"[" * DEEP, 400, INVALID, "input[0][0]"),
    Bad("deep nesting of the body", E, b"[" * DEEP, 400, INVALID),
    Bad("NaN", E, b'{"input": [{"fps": NaN}]}', 400, JSON),
    Bad("infinity", E, b'{"input": [{"fps": 1e999}]}', 400, INVALID, "input[0].fps"),
    Bad("huge integer", E, b'{"input": "a", "dimensions": ' + b"9" * 400 + b"}", 400, INVALID, "dimensions"),
    Bad("integer of 10000 digits", E, b'{"input": "a", "dimensions": ' + b"9" * 10_000 + b"}", 400, INVALID),
    Bad("no input", E, {}, 400, MISSING, "input"),
    Bad("null input", E, {"input": None}, 400, MISSING, "input"),
    Bad("empty input", E, {"input": []}, 400, INVALID, "input"),
    Bad("a number as input", E, {"input": 3.5}, 400, INVALID, "input"),
    Bad("null in input", E, {"input": ["a", None]}, 400, INVALID, "input[1]"),
    Bad("unknown field", E, {"input": "a", "dimension": 4}, 400, UNKNOWN, "dimension"),
    Bad("unknown field of an item", E, {"input": ["a", {"imag": "x"}]}, 400, UNKNOWN, "input[1].imag"),
    Bad("zero dimensions", E, {"input": "a", "dimensions": 0}, 400, INVALID, "dimensions"),
    Bad("negative dimensions", E, {"input": "a", "dimensions": -1}, 400, INVALID, "dimensions"),
    Bad("dimensions as text", E, {"input": "a", "dimensions": "64"}, 400, INVALID, "dimensions"),
    Bad("dimensions as float", E, {"input": "a", "dimensions": 64.0}, 400, INVALID, "dimensions"),
    Bad("unknown encoding", E, {"input": "a", "encoding_format": "hex"}, 400, INVALID, "encoding_format"),
    Bad("unknown number type", E, {"input": "a", "embed_dtype": "int4"}, 400, INVALID, "embed_dtype"),
    Bad(
        "two number types",
        E,
        {"input": "a", "embed_dtype": "int8", "output_dtype": "binary"},
        400,
        CONFLICT,
        "output_dtype",
    ),
    Bad("unknown task", E, {"input": "a", "task": "retrieval"}, 400, INVALID, "task"),
    Bad("late chunking", E, {"input": "a", "late_chunking": True}, 400, UNSUPPORTED, "late_chunking"),
    Bad("no normalisation", E, {"input": "a", "normalize": False}, 400, UNSUPPORTED, "normalize"),
    Bad("a template", E, {"input": "a", "chat_template": "x"}, 400, UNSUPPORTED, "chat_template"),
    Bad(
        "processor options",
        E,
        {"input": "a", "mm_processor_kwargs": {"do_sample_frames": False}},
        400,
        UNSUPPORTED,
        "mm_processor_kwargs.do_sample_frames",
    ),
    Bad("truncation to nothing", E, {"input": "a", "truncate_prompt_tokens": 0}, 400, INVALID),
    Bad("ids mixed with text", E, {"input": [1, "a"]}, 400, INVALID, "input"),
    Bad("negative id", E, {"input": [[1, -2]]}, 400, INVALID, "input[0][1]"),
    Bad("empty list of ids", E, {"input": [[]]}, 400, INVALID, "input[0]"),
    Bad("input and messages", E, {"input": "a", "messages": [USER]}, 400, CONFLICT, "messages"),
    Bad("no user message", E, {"messages": [{"role": "system", "content": "x"}]}, 400, MISSING, "messages"),
    Bad("two user messages", E, {"messages": [USER, USER]}, 400, "unsupported_message", "messages[1]"),
    Bad(
        "an answer in the messages",
        E,
        {"messages": [USER, {"role": "assistant", "content": "x"}]},
        400,
        "unsupported_message",
    ),
    Bad(
        "a tool message",
        E,
        {"messages": [{"role": "tool", "content": "x"}]},
        400,
        INVALID,
        "messages[0].role",
    ),
    Bad("mixed conversations", E, {"messages": [USER, [USER]]}, 400, INVALID, "messages"),
    Bad("an empty conversation", E, {"messages": [[]]}, 400, INVALID, "messages[0]"),
    Bad(
        "unknown part",
        E,
        {"input": [{"content": [PART, {"type": "audio_url"}]}]},
        400,
        INVALID,
        "input[0].content[1].type",
    ),
    Bad("part without a type", E, {"input": [{"content": [{"text": "x", "image": "y"}]}]}, 400, MISSING),
    Bad("content beside text", E, {"input": [{"text": "a", "content": [PART]}]}, 400, CONFLICT),
    Bad("a video without frames", E, {"input": [{"video": [[]]}]}, 400, "empty_list", "input[0].video[0]"),
    Bad("too many frames asked for", E, {"input": [{"video": "x", "max_frames": 65}]}, 400, INVALID),
    Bad("no frames a second", E, {"input": [{"video": "x", "fps": 0}]}, 400, INVALID, "input[0].fps"),
    Bad("unknown on_error", E, {"input": "a", "on_error": "ignore"}, 400, INVALID, "on_error"),
    Bad("too many items", E, {"input": ["a"] * 2049}, 413, "too_many_items", "input"),
    Bad("unknown model", E, {"input": "a", "model": "gpt-4"}, 404, "model_not_found", "model"),
    Bad("no query", R, {"documents": ["a"]}, 400, MISSING, "query"),
    Bad("no documents", R, {"query": "a"}, 400, MISSING, "documents"),
    Bad("empty documents", R, {"query": "a", "documents": []}, 400, INVALID, "documents"),
    Bad("a number as document", R, {"query": "a", "documents": ["b", 1]}, 400, INVALID, "documents[1]"),
    Bad("top_n below 0", R, {"query": "a", "documents": ["b"], "top_n": -1}, 400, INVALID, "top_n"),
    Bad("too many documents", R, {"query": "a", "documents": ["b"] * 1001}, 413, "too_many_documents"),
    Bad("unknown reranker", R, {"query": "a", "documents": ["b"], "model": "x"}, 404, "model_not_found"),
    Bad("uneven pairs", S, {"queries": ["a", "b"], "documents": ["c"]}, 400, "length_mismatch"),
    Bad("half a pair", S, {"text_1": "a"}, 400, MISSING, "documents"),
    Bad("two spellings of a pair", S, {"text_1": "a", "queries": "a", "text_2": "b"}, 400, CONFLICT),
    Bad("texts and images", "/v2/embed", {"texts": ["a"], "images": ["b"]}, 400, CONFLICT, "images"),
    Bad(
        "cutting the start", "/v2/embed", {"texts": ["a"], "truncate": "START"}, 400, UNSUPPORTED, "truncate"
    ),
    Bad("unknown type", "/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, 400, INVALID),
    Bad("no inputs", "/v1/multimodalembeddings", {"inputs": []}, 400, INVALID, "inputs"),
    Bad("no such route", "/v1/embedings", {"input": "a"}, 404, "route_not_found"),
    Bad(
        "wrong content type",
        E,
        {"input": "a"},
        415,
        "unsupported_content_type",
        headers={"content-type": "x"},
    ),
    Bad(
        "a form",
        E,
        b"input=a",
        415,
        "unsupported_content_type",
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Bad(
        "UTF-16",
        E,
        '{"input": "a"}'.encode("utf-16"),
        415,
        "unsupported_content_type",
        headers={"content-type": "application/json; charset=utf-16"},
    ),
    Bad(
        "compressed",
        E,
        zlib.compress(b'{"input": "a"}'),
        415,
        "unsupported_content_encoding",
        headers={"content-encoding": "deflate"},
    ),
)


def image(source: str) -> dict[str, Any]:
    return {"input": ["fine", {"text": "a", "image": source}]}


MEDIA = (
    Bad("not base64", E, image("!!!not base64!!!"), 422, "bad_source", "input[1].image"),
    Bad("broken data URL", E, image("data:image/png;base64,@@@@"), 422, "bad_base64", "input[1].image"),
    Bad("data URL without data", E, image("data:image/png"), 422, "bad_source", "input[1].image"),
    Bad("empty data", E, image("data:image/png;base64,"), 422, "bad_base64", "input[1].image"),
    Bad("half a JPEG", E, image(url("image/jpeg", jpeg()[:400])), 422, "undecodable_media", "input[1].image"),
    Bad(
        "100 megapixels",
        E,
        image(url("image/png", png(10_000, 10_000))),
        413,
        "too_many_pixels",
        "input[1].image",
    ),
    Bad("text as an image", E, image(url("image/png", b"hello " * 99)), 415, "unsupported_media"),
    Bad("a page as an image", E, image(url("image/jpeg", b"<html></html>")), 415, "unsupported_media"),
    Bad("an image as a video", E, {"input": [{"video": url("video/mp4", jpeg())}]}, 415, "wrong_media_kind"),
    Bad(
        "a broken frame",
        E,
        {"input": [{"video": [url("image/png", b"x" * 99)] * 4}]},
        415,
        "unsupported_media",
    ),
    Bad("private address", E, image("http://10.0.0.1/a.png"), 422, "url_forbidden", "input[1].image"),
    Bad("loopback", E, image("http://127.0.0.1:1/a.png"), 422, "url_forbidden", "input[1].image"),
    Bad("loopback by name", E, image("http://localhost:1/a.png"), 422, "url_forbidden", "input[1].image"),
    Bad("loopback, version 6", E, image("http://[::1]:1/a.png"), 422, "url_forbidden", "input[1].image"),
    Bad("metadata", E, image("http://169.254.169.254/latest"), 422, "url_forbidden", "input[1].image"),
    Bad("mapped loopback", E, image("http://[::ffff:127.0.0.1]/a.png"), 422, "url_forbidden"),
    Bad("a file", E, image("file:///etc/passwd"), 422, "url_forbidden", "input[1].image"),
    Bad("another scheme", E, image("ftp://example.com/a.png"), 422, "bad_source", "input[1].image"),
    Bad(
        "an image too many",
        E,
        {"input": [{"image": [url("image/jpeg", jpeg())] * 33}]},
        413,
        "too_many_images",
    ),
    Bad("a bad document", R, {"query": "a", "documents": ["b", {"image": "zzz"}]}, 422, "bad_base64"),
    Bad("a bad query", R, {"query": {"image": "zzz"}, "documents": ["b"]}, 422, "bad_base64", "query.image"),
)

ALL = (*SHAPES, *MEDIA)
