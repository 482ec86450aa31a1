"""Vectors and logits of one contestant: an engine of ours, or the Hugging Face code in float32."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.contestants.huggingface import HuggingFace
from benchmarks.quality.metrics import Scores
from qvl.engine import EmbedRequest, Engine, EngineConfig
from qvl.engine.demo.tasks import Item
from qvl.engine.protocol import RerankRequest
from qvl.engine.quantize.examples import content
from qvl.engine.quantize.original import threads

Rankings = Sequence[tuple[Item, Sequence[Item]]]
_BATCH = 32
_REQUEST = 256


@dataclass(frozen=True)
class Asked:
    """Of one task; what a role is not asked is empty."""

    queries: Sequence[Item] = ()
    documents: Sequence[Item] = ()
    rankings: Rankings = ()
    """Queries, each with as many documents as the others."""


@dataclass(frozen=True)
class Answers:
    queries: Scores
    documents: Scores
    logits: Scores
    """(rankings, documents)."""


def reference_vectors(model: HuggingFace, items: Sequence[Item]) -> Scores:
    inputs = [model.embed_inputs(_opened(item)) for item in items]
    rows: Scores = torch.nn.functional.normalize(_hidden(model, inputs), dim=-1).cpu().numpy()
    return rows


def reference_logits(model: HuggingFace, rankings: Rankings) -> Scores:
    rows = []
    for query, documents in rankings:
        asked = _opened(query)
        inputs = [model.rerank_inputs(asked, _opened(each), query.instruction) for each in documents]
        rows.append((_hidden(model, inputs) @ model.direction).cpu().numpy())
    return np.stack(rows)


async def served(config: EngineConfig, asked: Mapping[str, Asked]) -> dict[str, Answers]:
    """All tasks through one engine. Raises CheckpointError where it does not start."""
    async with await Engine.start(config) as engine:
        return {name: await _answers(engine, each) for name, each in asked.items()}


async def _answers(engine: Engine, asked: Asked) -> Answers:
    logits = []
    for query, documents in asked.rankings:
        shown = tuple(content(each) for each in documents)
        request = RerankRequest(query=content(query), documents=shown)
        logits.append((await engine.rerank(request)).logits)
    return Answers(
        await _vectors(engine, asked.queries),
        await _vectors(engine, asked.documents),
        np.stack(logits) if logits else np.zeros((0, 0), np.float32),
    )


async def _vectors(engine: Engine, items: Sequence[Item]) -> Scores:
    parts = []
    for at in range(0, len(items), _REQUEST):
        request = EmbedRequest(input=tuple(content(each) for each in items[at : at + _REQUEST]))
        parts.append((await engine.embed(request)).vectors)
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def largest(items: Sequence[Item]) -> int:
    """Pixels of the largest picture."""
    return max((image.width * image.height for item in items for image in _pictures(item)), default=0)


def shrunk(item: Item, pixels: int) -> Item:
    """Pictures of more than `pixels` made as small as that."""
    return Item(
        text=item.text,
        image=item.image and _smaller(item.image, pixels),
        frames=tuple(_smaller(each, pixels) for each in item.frames),
        instruction=item.instruction,
    )


def _smaller(image: Image.Image, pixels: int) -> Image.Image:
    ratio = (pixels / (image.width * image.height)) ** 0.5
    if ratio >= 1:
        return image
    return image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))))


def _pictures(item: Item) -> tuple[Image.Image, ...]:
    return (item.image, *item.frames) if item.image else item.frames


def _opened(item: Item) -> dict[str, Any]:
    return {
        "text": [item.text] if item.text else [],
        "image": [item.image] if item.image else [],
        "video": [list(item.frames)] if item.frames else [],
        "instruction": item.instruction,
    }


def _hidden(model: HuggingFace, inputs: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    with threads(model.model):
        return torch.cat([model.hidden(inputs[at : at + _BATCH]) for at in range(0, len(inputs), _BATCH)])


def leave_the_gpu() -> None:
    """What torch keeps of models that are gone: an engine wants to find the memory free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reference_model(folder: Path) -> HuggingFace:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return HuggingFace(folder, dtype="float32", device=device)
