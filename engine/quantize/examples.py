"""Prompts of real use, for AWQ's search and for the report: a file's, or the demo world's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qvl.engine.checkpoint import Checkpoint, TextSide
from qvl.engine.config import Limits, MediaConfig
from qvl.engine.demo import tasks
from qvl.engine.demo.batches import patches
from qvl.engine.demo.samples import png
from qvl.engine.errors import BadRequest, ConfigError, QvlError
from qvl.engine.jobs import native
from qvl.engine.jobs.lines import read
from qvl.engine.jobs.tasks import parse
from qvl.engine.media import MediaLoader
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Preparer, Ready
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest

Pair = tuple[Content, tuple[Content, ...]]
MOST = 128
"""Prompts; more than this changes little."""
_SEED = 31


async def prompts(checkpoint: Checkpoint, side: TextSide, file: Path | None) -> list[Ready]:
    """As the server would make them. Raises ConfigError that names the file's line."""
    preparer = Preparer(MediaLoader(MediaConfig(), Limits(), lambda _: None), Metrics())
    try:
        if checkpoint.role == "embedder":
            items = _items(file) if file else _drawn_items()
            found = await preparer.embed(EmbedRequest(input=tuple(items[:MOST])), side)
        else:
            found = []
            for query, documents in (_pairs(file) if file else _drawn_pairs())[:MOST]:
                found += await preparer.rerank(RerankRequest(query=query, documents=documents), side)
    except QvlError as error:
        raise ConfigError(f"{file or 'examples'}: {error.param or ''}: {error.message}") from error
    finally:
        await preparer.close()
    return [each for each in found if isinstance(each, Ready)][:MOST]


def tensors(ready: Ready, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A batch of one for Hugging Face's Qwen3-VL."""
    ids = torch.tensor([ready.prompt.ids])
    kinds = (ids == config["image_token_id"]) * 1 + (ids == config["video_token_id"]) * 2
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds.int()}
    for kind, suffix in (("image", ""), ("video", "_videos")):
        if chosen := [each for each in ready.visuals if each.kind == kind]:
            batch[f"pixel_values{suffix}"] = torch.cat([patches(each) for each in chosen])
            batch[f"{kind}_grid_thw"] = torch.tensor([each.grid for each in chosen])
    return batch


def _items(file: Path) -> Sequence[Content]:
    """Lines as `qvl embed` takes them."""
    return native.contents([each.value for each in _lines(file)])


def _pairs(file: Path) -> list[Pair]:
    """Lines as `qvl rerank` takes them; of each, its first four documents."""
    made = []
    for line in _lines(file):
        value = line.value
        if not isinstance(value, dict) or not {"query", "documents"} <= value.keys():
            raise BadRequest('must be an object with "query" and "documents"', param=f"line {line.index + 1}")
        query, documents = native.pair(value["query"], value["documents"][:4])
        made.append((query, documents))
    return made


def _lines(file: Path) -> list[Any]:
    found = [parse(line) for _, line in zip(range(MOST), read(file), strict=False)]
    if not found:
        raise BadRequest("has no lines", param="file")
    return found


def _drawn() -> list[tuple[Content, Content]]:
    """Queries and their documents, in all kinds but videos, which cost more than they add."""
    rng = np.random.default_rng(_SEED)
    return [
        (_content(each.query), _content(each.document))
        for task in ("text to image", "image to text", "page", "mixed")
        for each in tasks.sample(task, rng, MOST // 8)
    ]


def _drawn_items() -> list[Content]:
    return [each for both in _drawn() for each in both]


def _drawn_pairs() -> list[Pair]:
    """Each query with its document and with another's."""
    drawn = _drawn()
    shifted = [*drawn[1:], drawn[0]]
    return [(query, (right, wrong)) for (query, right), (_, wrong) in zip(drawn, shifted, strict=True)]


def _content(item: tasks.Item) -> Content:
    return Content(
        texts=(item.text,) if item.text else (),
        images=(png(item.image),) if item.image else (),
        instruction=item.instruction,
    )
