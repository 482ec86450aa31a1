"""How much of a GPU's memory each model takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from qvl.engine.config import EngineConfig
from qvl.engine.errors import ConfigError
from qvl.engine.hardware import SHARE


def share(config: EngineConfig, role: Literal["embedder", "reranker"], *, beside: bool) -> float:
    """Of the whole GPU; `beside`: a model of the other role is there too, and takes its own.

    Raises ConfigError when that leaves nothing.
    """
    own, other = config.embedder_memory, config.reranker_memory
    if role == "reranker":
        own, other = other, own
    if own is not None:
        return own
    if not beside:
        return SHARE
    if other is not None and other >= SHARE:
        raise ConfigError(
            f"{other:g} of the GPU's memory for one model leaves none for the {role}: give both their share, "
            f"embedder_memory and reranker_memory, {SHARE:g} together"
        )
    return SHARE / 2 if other is None else SHARE - other


def divided(config: EngineConfig, part: float) -> EngineConfig:
    """For a replica that has only `part` of a GPU: so much of what it would take of all of it.

    vLLM counts in whole GPUs, whoever else is there.
    """
    if part >= 1:
        return config
    embedder, reranker = (share(config, role, beside=config.two) * part for role in ("embedder", "reranker"))
    return replace(config, embedder_memory=embedder, reranker_memory=reranker)
