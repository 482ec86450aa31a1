"""Bad requests in the shapes of other hosts, as `bad_requests` has those in the usual ones."""

from __future__ import annotations

from tests.engine.http.bad_requests import (
    CONFLICT,
    INVALID,
    MISSING,
    UNKNOWN,
    UNSUPPORTED,
    Bad,
    E,
    R,
    png,
    url,
)

DE = "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
DR = "/api/v1/services/rerank/text-rerank/text-rerank"
K = "/tokenize"
N = "/v1/ranking"
T = "/similarity"
TEXT = {"text": "a"}
PART = "no_such_part"
MP4 = "data:video/mp4;base64,AAAAGGZ0eXBtcDQy"
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,AA=="}]}
PNG = url("image/png", png(64, 64))
PAIR = {"query": "a", "documents": ["b"]}

SHAPES = (
    Bad("no envelope", DE, {"contents": [TEXT]}, 400, UNKNOWN, "contents"),
    Bad("an empty envelope", DE, {"input": {}}, 400, MISSING, "input.contents"),
    Bad("no contents", DE, {"input": {"contents": []}}, 400, INVALID, "input.contents"),
    Bad("contents that are texts", DE, {"input": {"contents": ["a"]}}, 400, INVALID, "input.contents[0]"),
    Bad(
        "sound", DE, {"input": {"contents": [TEXT, {"audio": "x"}]}}, 400, UNKNOWN, "input.contents[1].audio"
    ),
    Bad(
        "a resolution",
        DE,
        {"input": {"contents": [TEXT]}, "parameters": {"res_level": 2}},
        400,
        UNSUPPORTED,
        "parameters.res_level",
    ),
    Bad(
        "parts with weights",
        DE,
        {"input": {"contents": [{"text": "a", "factor": 3}]}},
        400,
        UNSUPPORTED,
        "input.contents[0].factor",
    ),
    Bad("too many contents", DE, {"input": {"contents": [TEXT] * 2049}}, 413, "too_many_items"),
    Bad("nothing to compare", T, {"inputs": {"source_sentence": "a"}}, 400, MISSING, "inputs.sentences"),
    Bad(
        "no sentences",
        T,
        {"inputs": {"source_sentence": "a", "sentences": []}},
        400,
        INVALID,
        "inputs.sentences",
    ),
    Bad("no source", "/", {"inputs": {"sentences": ["a"]}}, 400, MISSING, "inputs.source_sentence"),
    Bad(
        "an item beside sentences",
        "/",
        {"inputs": {"source_sentence": "a", "sentences": ["a"], "text": "b"}},
        400,
        UNKNOWN,
        "inputs.text",
    ),
    Bad(
        "sentences cut at their start",
        T,
        {
            "inputs": {"source_sentence": "a", "sentences": ["a"]},
            "parameters": {"truncation_direction": "Left"},
        },
        400,
        UNSUPPORTED,
        "truncation_direction",
    ),
    Bad("no passages", N, {"query": TEXT, "passages": []}, 400, INVALID, "passages"),
    Bad("a bare query", N, {"query": "a", "passages": [TEXT]}, 400, INVALID, "query"),
    Bad(
        "passages cut at their start",
        N,
        {"query": TEXT, "passages": [TEXT], "truncate": "START"},
        400,
        UNSUPPORTED,
        "truncate",
    ),
    Bad("nothing to tokenise", K, {}, 400, MISSING, "inputs"),
    Bad("two things to tokenise", K, {"inputs": "a", "prompt": "b"}, 400, CONFLICT, "prompt"),
    Bad("an image to tokenise", K, {"messages": [IMAGE]}, 400, UNSUPPORTED, "messages"),
    Bad(
        "a template to tokenise",
        K,
        {"messages": [IMAGE], "chat_template": "x"},
        400,
        UNSUPPORTED,
        "chat_template",
    ),
    Bad("too much to tokenise", K, {"inputs": ["é" * 70_000] * 2}, 413, "too_much_text", "inputs"),
    Bad("too many texts to tokenise", K, {"inputs": ["a"] * 2049}, 413, "too_many_items", "inputs"),
    Bad("no query in an envelope", DR, {"input": {"documents": ["b"]}}, 400, MISSING, "input.query"),
    Bad("parameters in the body", DR, {"input": PAIR, "top_n": 1}, 400, UNKNOWN, "top_n"),
    Bad(
        "too many in an envelope",
        DR,
        {"input": {**PAIR, "documents": ["b"] * 1001}},
        413,
        "too_many_documents",
    ),
)

MEDIA = (
    Bad(
        "pixels of an image",
        E,
        {"input": ["a", {"image": PNG, "max_pixels": 1843201}]},
        400,
        UNSUPPORTED,
        "input[1].max_pixels",
    ),
    Bad(
        "pixels of all frames of a file",
        E,
        {"input": [{"video": MP4, "total_pixels": 7864320}]},
        400,
        UNSUPPORTED,
        "input[0].total_pixels",
    ),
    Bad(
        "pixels of an image for its frames",
        E,
        {"input": [{"video": [PNG, PNG]}], "mm_processor_kwargs": {"max_pixels": 1843200}},
        400,
        UNSUPPORTED,
        "input[0].max_pixels",
    ),
    Bad(
        "a part of a film",
        E,
        {"input": ["a", {"video": "https://h/a.mp4#t=20,10"}]},
        422,
        PART,
        "input[1].video",
    ),
    Bad(
        "a part of an inline film", E, {"input": [{"video": f"{MP4}#T=npt:10,"}]}, 422, PART, "input[0].video"
    ),
    Bad(
        "a part of a film in a folder",
        R,
        {"query": "a", "documents": [{"content": [{"video_url": "a.mp4#x=1&t=1e3"}]}]},
        422,
        PART,
        "documents[0].video",
    ),
    Bad(
        "a private address in an envelope",
        DE,
        {"input": {"contents": [TEXT, {"image": "http://10.0.0.1/a.png"}]}},
        422,
        "url_forbidden",
        "input.contents[1].image",
    ),
    Bad(
        "a bad document in an envelope",
        DR,
        {"input": {**PAIR, "documents": ["b", {"image": "zzz"}]}},
        422,
        "bad_base64",
        "input.documents[1].image",
    ),
)
