"""vLLM's own server, as its documentation and its users set it up.

`vllm-default` has what it needs to answer right and nothing else: the pixel limits, the reranker's head and
template, the model's length (DESIGN of the models, vLLM's examples). `vllm-tuned` has what a careful operator
adds: prefix caching off where nothing is shared and fine-grained where the query is, larger steps, no
statistics, `/score`, which does not echo the documents; on a GPU also asynchronous scheduling, many renderer
workers and a count of API servers to sweep. Both are asked in the way that is right and cheapest for them:
texts already in the chat template, media in `messages` with the generation prompt.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.asks import Ask, Embed, Item
from benchmarks.contestants.base import Answer, Site, ranked, texts_only, url, vectors
from benchmarks.load import Shot
from qvl.engine.machine import cores

TEMPLATE = Path(__file__).parent / "reranker.jinja"
INSTRUCTION = "Represent the user's input."
PIXELS = {"images_kwargs": {"size": {"shortest_edge": 4096, "longest_edge": 1843200}}}
FRAMES = {"video": {"fps": 2.0, "num_frames": -1}}
"""A list of frames is taken whole, at the reference's 2 frames per second."""
RERANKER = {
    "architectures": ["Qwen3VLForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}
STEP = {True: (16384, 1024), False: (8192, 256)}
"""Tokens and sequences of one engine step of the tuned server, by whether there is a GPU; as `qvl serve`."""
RENDERERS = 4
"""Fewer workers than that lose. vLLM shares its cache of prepared media among none, and without it prepares
a query's image for each document: 20.9 in place of 6.9 ms of CPU a pair."""


@dataclass(frozen=True, slots=True)
class Stock:
    name: str
    tuned: bool
    api_servers: int = 1
    health: str = "/health"

    def command(self, site: Site, port: int) -> Sequence[str]:
        command = [sys.executable, "-m", *_entry(site), "--host", "127.0.0.1", "--port", str(port)]
        for name, value in (
            flags(site) | (tuned_flags(site, self.api_servers) if self.tuned else {})
        ).items():
            command += _spelled(name, value)
        if self.api_servers > 1:
            command += ["--api-server-count", str(self.api_servers)]
        return command

    def shot(self, site: Site, ask: Ask) -> Shot:
        model = site.checkpoint.name
        if isinstance(ask, Embed):
            body = {"model": model, "encoding_format": "base64", **_embedding(ask)}
            return Shot("/v1/embeddings", orjson.dumps(body), ask.count)
        query, documents = _content(ask.query), [_content(item) for item in ask.documents]
        if self.tuned:
            body = {"model": model, "text_1": query, "text_2": documents}
            return Shot("/score", orjson.dumps(body), ask.count)
        body = {"model": model, "query": query, "documents": documents}
        return Shot("/rerank", orjson.dumps(body), ask.count)

    def answer(self, body: bytes) -> Answer:
        reply = orjson.loads(body)
        if "results" in reply:
            return ranked(reply)
        if "score" in reply["data"][0]:
            return ranked(
                {"results": [{"index": d["index"], "relevance_score": d["score"]} for d in reply["data"]]}
            )
        return vectors(reply)


def flags(site: Site) -> dict[str, Any]:
    """What stock vLLM needs for right answers; on a CPU also the settings that both sides share."""
    wanted: dict[str, Any] = {
        "served-model-name": site.checkpoint.name,
        "runner": "pooling",
        "dtype": site.dtype,
        "max-model-len": site.checkpoint.max_length,
        "mm-processor-kwargs": PIXELS,
        "media-io-kwargs": FRAMES,
    }
    # `tie_word_embeddings` lies at the top level of some checkpoints, where vLLM does not look.
    overrides: dict[str, Any] = {"text_config": {"tie_word_embeddings": site.checkpoint.tied}}
    if site.role == "reranker":
        wanted["chat-template"] = str(TEMPLATE)
        overrides |= RERANKER
    else:
        overrides["is_matryoshka"] = True
    wanted["hf-overrides"] = overrides
    if site.quantization:
        wanted["quantization"] = site.quantization
    if site.gpu:
        wanted["gpu-memory-utilization"] = site.gpu_share
    else:
        wanted |= {"kv-cache-memory-bytes": site.kv_bytes, "skip-mm-profiling": True}
    return wanted


def tuned_flags(site: Site, api_servers: int = 1) -> dict[str, Any]:
    tokens, sequences = STEP[site.gpu]
    found: dict[str, Any] = {
        "enable-prefix-caching": site.role == "reranker",
        "max-num-batched-tokens": tokens,
        "max-num-seqs": sequences,
        "disable-log-stats": True,
        "disable-uvicorn-access-log": True,
    }
    if not site.gpu:  # its cores are the engine's: two workers on two gave nothing
        return found | {"block-size": 32}
    if (renderers := cores() // api_servers) >= RENDERERS:
        found |= {"renderer-num-workers": renderers, "mm-processor-cache-gb": 0}
    return found | {"async-scheduling": True}


def templated(text: str) -> str:
    """A text in the embedder's chat template, as its callers must write it."""
    return (
        f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n"
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    )


def _entry(site: Site) -> list[str]:
    """The `vllm` command asks for a distribution of that name, which the CPU build lacks."""
    if site.gpu:
        return ["vllm.entrypoints.cli.main", "serve", str(site.folder)]
    return ["vllm.entrypoints.openai.api_server", "--model", str(site.folder)]


def _spelled(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", orjson.dumps(value).decode() if isinstance(value, dict) else str(value)]


def _embedding(ask: Embed) -> dict[str, Any]:
    if texts_only(ask.items):
        return {"input": [templated(str(item.text)) for item in ask.items]}
    if ask.count != 1:
        raise ValueError("one medium to a request: `messages` is one conversation")
    return {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]},
            {"role": "user", "content": [_part(ask.items[0])]},
        ],
        "add_generation_prompt": True,
        "add_special_tokens": True,
    }


def _content(item: Item) -> Any:
    return item.text if item.text is not None else {"content": [_part(item)]}


def _part(item: Item) -> dict[str, Any]:
    if item.image is not None:
        return {"type": "image_url", "image_url": {"url": url(item.image)}}
    frames = ",".join(base64.b64encode(frame).decode() for frame in item.frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
