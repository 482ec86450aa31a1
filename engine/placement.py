"""Which GPUs each replica of a host gets, and how much of them, or of a CPU's memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from qvl.engine import machine
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.shares import decoding, divided

VISIBLE = "CUDA_VISIBLE_DEVICES"
_log = logging.getLogger("qvl.server")


@dataclass(frozen=True)
class Seat:
    """Where a replica runs."""

    gpus: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them; none: the CPU."""
    engine: EngineConfig


def visible_gpus(environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """Those that CUDA would show a process started now; `count` says how many there are."""
    chosen = environment.get(VISIBLE)
    if chosen is None:
        return [str(i) for i in range(count())]
    names = (name.strip() for name in chosen.split(","))
    return list(takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA reads it


def seats(config: ServerConfig, gpus: Sequence[str], cores: int | None = None) -> list[Seat]:
    """The replicas take the GPUs in turn, `tensor_parallel` at a time."""
    wide = config.engine.tensor_parallel
    places = [tuple(gpus[i : i + wide]) for i in range(0, len(gpus) - wide + 1, wide)]
    if gpus and not places:
        raise ConfigError(f"--tensor-parallel is {wide}, but the GPUs here are {len(gpus)}")
    places = places or [()]
    taken = [places[i % len(places)] for i in range(config.replicas)]
    engine = decoding(config.engine, config.replicas, cores or machine.cores())
    return [Seat(place, divided(engine, 1 / taken.count(place))) for place in taken]


def idle(config: ServerConfig, gpus: Sequence[str]) -> str:
    """What to say of the GPUs that no replica takes; nothing when there are none."""
    wide = config.engine.tensor_parallel
    most = len(gpus) // wide
    if config.replicas >= most:
        return ""
    return f"{config.replicas * wide} of {len(gpus)} GPUs are used; --replicas {most} uses all"


def uneven(config: ServerConfig, gpus: Sequence[str]) -> str:
    """What to say of GPUs that have more replicas than others; nothing when there are none."""
    places = len(gpus) // config.engine.tensor_parallel
    least, more = divmod(config.replicas, places) if places else (0, 0)
    if not least or not more:
        return ""
    return (
        f"{config.replicas} replicas on {len(gpus)} GPUs: some hold {least + 1}, others {least}; "
        f"--replicas {least * places} or {(least + 1) * places} spreads them evenly"
    )


def gpus_here() -> list[str]:
    """Those that replicas may take; to count them may take seconds."""
    return visible_gpus(os.environ, machine.count) if machine.for_gpus() else []


def tell_of_idle(config: ServerConfig, gpus: Sequence[str]) -> None:
    for said in filter(None, (idle(config, gpus), uneven(config, gpus))):
        _log.warning("%s", said)
