"""What an actor takes of a GPU, and the card that several of them share."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from qvl.engine import machine

_ROUNDING = 1e-6
"""Ten shares of 0.1 are 1."""


def gpus_of(asked: float | None, tensor_parallel: int, cards: float) -> float:
    """GPUs that one engine takes of a cluster of `cards`: `asked`, or whole ones where there are any."""
    if asked is not None:
        return asked
    # A cluster that scales may have no GPU until somebody asks for one.
    return tensor_parallel if cards or machine.for_gpus() else 0


def carried(part: float, there: float) -> int:
    """Engines that take `part` each of so many cores or GPUs: none of less than one GPU straddles two."""
    return int(there // part) if part >= 1 else int(there) * int(1 / part + _ROUNDING)


def beside(most: int) -> int:
    """Of `most` actors like this one, how many its node has room for, itself among them."""
    import ray

    context = ray.get_runtime_context()
    node = next(each for each in ray.nodes() if each["NodeID"] == context.get_node_id())
    return room_for(most, context.get_assigned_resources(), node["Resources"])


def room_for(most: int, own: Mapping[str, float], node: Mapping[str, float]) -> int:
    """`own`: what each takes of the resources of a node, as Ray names them."""
    rooms = [carried(own[name], node.get(name, 0)) for name in ("CPU", "GPU") if own.get(name)]
    return max(1, min([most, *rooms]))


def cards_for(parts: Sequence[float]) -> int:
    """GPUs that carry engines of so many each: none of less than one straddles two."""
    whole, left = 0, list[float]()
    for part in sorted(parts, reverse=True):
        if part >= 1:
            whole += round(part)
        elif part:
            place = next((i for i, room in enumerate(left) if room >= part - _ROUNDING), len(left))
            left[place : place + 1] = [(left[place] if place < len(left) else 1) - part]
    return whole + len(left)


@asynccontextmanager
async def alone_on_the_card(gpus: float) -> AsyncIterator[None]:
    """Engines that share a card load one after another: vLLM measures the card's memory as it starts."""
    if not 0 < gpus < 1:
        yield
        return
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").replace(",", "-")
    path = Path(tempfile.gettempdir()) / f"qvl-gpu-{os.getuid()}-{card}.lock"
    with path.open("w") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
