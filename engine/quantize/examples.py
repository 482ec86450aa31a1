"""Prompts of real use, for AWQ's search: a file's, or the demo world's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from qvl.engine.checkpoint import Checkpoint, Role
from qvl.engine.config import Limits, MediaConfig
from qvl.engine.demo import tasks
from qvl.engine.demo.drawing import png
from qvl.engine.errors import ConfigError, QvlError
from qvl.engine.jobs import native
from qvl.engine.jobs.lines import read
from qvl.engine.jobs.tasks import pair_of, parse
from qvl.engine.media import MediaLoader
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Preparer, Ready
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest
from qvl.engine.text_side import TextSide

Request: TypeAlias = EmbedRequest | RerankRequest
MOST = 128
"""Prompts; more than this changes little."""
_SEED = 31


async def prompts(checkpoint: Checkpoint, side: TextSide, file: Path | None) -> list[Ready]:
    """As the server would make them. Raises ConfigError that names the file's line."""
    preparer = Preparer(MediaLoader(MediaConfig(), Limits(), lambda _: None), Metrics())
    found: list[Ready] = []
    try:
        for where, request in _lines(file, checkpoint.role) if file else _drawn(checkpoint.role):
            with _named(where):
                prepared = (
                    await preparer.embed(request, side)
                    if isinstance(request, EmbedRequest)
                    else await preparer.rerank(request, side)
                )
            found += [each for each in prepared if isinstance(each, Ready)]
            if len(found) >= MOST:
                break
    finally:
        await preparer.close()
    if not found:
        raise ConfigError(f"{file} has no lines")
    return found[:MOST]


def _lines(file: Path, role: Role) -> Iterator[tuple[str, Request]]:
    """As `qvl embed` or `qvl rerank` takes them; of the latter's, the first four documents."""
    for line in read(file):
        where = f"{file}, line {line.index + 1}"
        with _named(where):
            value = parse(line).value
            if role == "embedder":
                request: Request = EmbedRequest(input=native.contents([value]))
            else:
                asked, candidates, instruction, _ = pair_of(value)
                query, documents = native.pair(asked, candidates[:4])
                request = RerankRequest(query=query, documents=documents, instruction=instruction)
        yield where, request


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except QvlError as error:
        raise ConfigError(f"{where}: {error.message}") from None


def _drawn(role: Role) -> Iterator[tuple[str, Request]]:
    """Of all kinds but videos, which cost more than they add; a reranker gets each query with its document
    and with another's."""
    rng = np.random.default_rng(_SEED)
    drawn = [
        (content(each.query), content(each.document))
        for task in ("text to image", "image to text", "page", "mixed")
        for each in tasks.sample(task, rng, MOST // 8)
    ]
    if role == "embedder":
        yield "examples", EmbedRequest(input=tuple(each for both in drawn for each in both))
        return
    for (query, right), (_, wrong) in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
        yield "examples", RerankRequest(query=query, documents=(right, wrong))


def content(item: tasks.Item) -> Content:
    return Content(
        texts=(item.text,) if item.text else (),
        images=(png(item.image),) if item.image else (),
        videos=(tuple(png(frame) for frame in item.frames),) if item.frames else (),
        instruction=item.instruction,
    )
