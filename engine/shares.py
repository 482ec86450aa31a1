"""What those take each that share a machine: models a device's memory, replicas the cores to decode on."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from qvl.engine.config import SHARE, EngineConfig


def share(config: EngineConfig, role: Literal["embedder", "reranker"], *, beside: bool) -> float:
    """Of the whole GPU, or where there is none: of SHARE, which is all of the machine's memory.

    `beside`: a model of the other role is there too, and takes its own.
    """
    own, other = config.embedder_memory, config.reranker_memory
    if role == "reranker":
        own, other = other, own
    if own is not None:
        return own
    if not beside:
        return SHARE
    return SHARE / 2 if other is None else SHARE - other


def divided(config: EngineConfig, part: float) -> EngineConfig:
    """For a replica that has only `part` of a device: so much of what it would take of all of it.

    vLLM counts in whole ones, whoever else is there.
    """
    if part >= 1:
        return config
    embedder, reranker = (share(config, role, beside=config.two) * part for role in ("embedder", "reranker"))
    return replace(config, embedder_memory=embedder, reranker_memory=reranker)


def decoding(config: EngineConfig, replicas: int, cores: int) -> EngineConfig:
    """For one of so many replicas on a machine: its part of the cores, unless --workers says how many."""
    workers = config.media.workers or max(1, cores // replicas)
    return replace(config, media=replace(config.media, workers=workers))
