"""The contestants without their servers, in a process that `offline` starts.

python -m benchmarks.contestants.inprocess JOB OUT      # both are pickles that this package wrote
"""

from __future__ import annotations

import asyncio
import io
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.asks import Ask, Embed, Item
from benchmarks.contestants import stock
from benchmarks.contestants.base import Answer
from benchmarks.offline import Answers, Done, Job, Task, clocked
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest

_SERVER_ONLY = {"chat-template", "media-io-kwargs", "disable-uvicorn-access-log", "served-model-name"}
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def run(job: Job) -> list[Done]:
    if job.contestant == "reference":
        return _reference(job)
    return asyncio.run(_qvl(job)) if job.contestant == "qvl" else _vllm(job)


def _reference(job: Job) -> list[Done]:
    from benchmarks.contestants.huggingface import HuggingFace

    device = "cuda" if job.site.gpu else "cpu"
    model = HuggingFace(job.site.folder, dtype=job.site.dtype, device=device)

    def answer(task: Task) -> Answers:
        found = [model.answer(ask, task.batch) for ask in _merged(task.asks)]
        return _split(task.asks, [rows for rows, _ in found]), [n for _, each in found for n in each]

    return [clocked(task, job.site, answer) for task in job.tasks]


async def _qvl(job: Job) -> list[Done]:
    from qvl.engine import Engine, EngineConfig

    site = job.site
    settings: dict[str, Any] = {site.role: str(site.folder), "dtype": site.dtype}
    if site.gpu:
        settings[f"{site.role}_memory"] = site.gpu_share
    # Where it quantises, the vision tower too: as stock does.
    config = EngineConfig(quantization=site.quantization, quantize_vision=bool(site.quantization), **settings)
    async with await Engine.start(config) as engine:
        loop = asyncio.get_running_loop()

        async def rows(ask: Ask) -> Answer:
            if isinstance(ask, Embed):
                request = EmbedRequest(input=tuple(_content(item) for item in ask.items))
                return (await engine.embed(request)).vectors
            documents = tuple(_content(item) for item in ask.documents)
            result = await engine.rerank(RerankRequest(query=_content(ask.query), documents=documents))
            return result.scores.astype(np.float32)

        async def everything(task: Task) -> Answers:
            found = await asyncio.gather(*(rows(ask) for ask in _merged(task.asks)))
            return _split(task.asks, found), []

        def answer(task: Task) -> Answers:
            return asyncio.run_coroutine_threadsafe(everything(task), loop).result()

        return [await asyncio.to_thread(clocked, task, site, answer) for task in job.tasks]


def _vllm(job: Job) -> list[Done]:
    from vllm import LLM

    site = job.site
    flags = stock.flags(site) | (stock.tuned_flags(site) if job.contestant != "vllm-default" else {})
    settings = {name.replace("-", "_"): v for name, v in flags.items() if name not in _SERVER_ONLY}
    llm = LLM(model=str(site.folder), **settings)

    def answer(task: Task) -> Answers:
        if site.role == "embedder":
            prompts = [_prompt(item) for ask in task.asks if isinstance(ask, Embed) for item in ask.items]
            rows = np.array([each.outputs.embedding for each in llm.embed(prompts, use_tqdm=False)])
        else:
            rows = np.array(_scores(llm, task.asks))
        places = np.cumsum([ask.count for ask in task.asks])[:-1]
        return [part.astype(np.float32) for part in np.split(rows, places)], []

    return [clocked(task, site, answer) for task in job.tasks]


def _scores(llm: Any, asks: Sequence[Ask]) -> list[float]:
    """All pairs of all requests in one call, which is the most that `LLM.score` can be given."""
    pairs = [
        (ask.query.text, document.text)
        for ask in asks
        if not isinstance(ask, Embed)
        for document in ask.documents
    ]
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise ValueError("offline reranking is compared on texts")
    queries, documents = map(list, zip(*pairs, strict=True))
    template = stock.TEMPLATE.read_text()
    found = llm.score(queries, documents, chat_template=template, use_tqdm=False)
    return [each.outputs.score for each in found]


def _prompt(item: Item) -> dict[str, Any]:
    if item.text is not None:
        return {"prompt": stock.templated(item.text)}
    if item.image is None:
        raise ValueError("offline embedding is compared on texts and images")
    picture = Image.open(io.BytesIO(item.image)).convert("RGB")
    return {"prompt": stock.templated(_IMAGE), "multi_modal_data": {"image": picture}}


def _content(item: Item) -> Content:
    return Content(
        texts=() if item.text is None else (item.text,),
        images=() if item.image is None else (item.image,),
        videos=(item.frames,) if item.frames else (),
    )


def _merged(asks: Sequence[Ask]) -> list[Ask]:
    """All embedding requests as one: offline, everything is there at the start."""
    items = tuple(item for ask in asks if isinstance(ask, Embed) for item in ask.items)
    rest = [ask for ask in asks if not isinstance(ask, Embed)]
    return ([Embed(items)] if items else []) + rest


def _split(asks: Sequence[Ask], found: Sequence[Answer]) -> list[Answer]:
    """One array for each request again."""
    if not isinstance(asks[0], Embed):
        return list(found)
    return np.split(found[0], np.cumsum([ask.count for ask in asks])[:-1])


def main(sent: Path, back: Path) -> None:
    back.write_bytes(pickle.dumps(run(pickle.loads(sent.read_bytes()))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
