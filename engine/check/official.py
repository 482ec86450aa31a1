"""What the authors' code answers, in a process of its own: its memory is free before an engine starts."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qvl.engine.check.asks import Ask, asks
from qvl.engine.check.rows import Told
from qvl.engine.checkpoint import Role
from qvl.engine.errors import CheckpointError
from qvl.engine.jobs.progress import say
from qvl.engine.model.plugin import follow

if TYPE_CHECKING:
    from qvl.engine.check.reference import Prompts, Reference


def answers(folder: Path, role: Role, *, weights: bool, pixels: Mapping[str, int]) -> list[Told]:
    """To `asks(role)`; without `weights` the ids alone. Raises CheckpointError, one line."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin) as process:
        try:
            return process.submit(_answers, folder, role, weights, pixels).result()
        except BrokenProcessPool:
            raise CheckpointError(
                f"{folder}: the process of the authors' code was killed, of memory most likely: in float32 a "
                "model takes four bytes for each parameter"
            ) from None


def _begin() -> None:
    """Ends with its parent, however that ends, and collects garbage, which our command line turns off for
    engines."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()
    gc.enable()


def _answers(folder: Path, role: Role, weights: bool, pixels: Mapping[str, int]) -> list[Told]:
    import torch

    from qvl.engine.quantize.original import out_of_memory

    try:
        if weights and torch.cuda.is_available():
            with suppress(torch.OutOfMemoryError):
                return _told(folder, role, "cuda", pixels)
            say("too little of the GPU's memory is free for float32: the CPU instead")
        return _told(folder, role, "cpu" if weights else None, pixels)
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        if out_of_memory(error):
            told = "out of memory, of which float32 takes four bytes for each parameter"
        raise CheckpointError(f"{folder}: the authors' code does not answer: {told}") from None


def _told(folder: Path, role: Role, device: str | None, pixels: Mapping[str, int]) -> list[Told]:
    """None: no weights are loaded, only ids are made."""
    from qvl.engine.check.reference import Prompts, Reference
    from qvl.engine.quantize.original import threads

    if device is None:
        prompts = Prompts(folder, pixels)
        return [_ids(prompts, ask) for ask in asks(role)]
    say(f"{folder.name}: the authors' code, in float32 on the {'CPU' if device == 'cpu' else 'GPU'}")
    reference = Reference(folder, pixels, device=device)
    with threads(reference.model):
        return [_whole(reference, ask) if ask.answered else _ids(reference, ask) for ask in asks(role)]


def _ids(prompts: Prompts, ask: Ask) -> Told:
    if ask.query is None:
        return Told([prompts.embed_ids(item) for item in ask.items.values()])
    return Told([prompts.rerank_ids(ask.query, item, ask.instruction) for item in ask.items.values()])


def _whole(reference: Reference, ask: Ask) -> Told:
    ids, rows = [], []
    for name, item in ask.items.items():
        say(f"  {name}")
        if ask.query is None:
            made, vectors = reference.embed([item])
            rows.append(vectors[0])
        else:
            made, logits, _ = reference.rerank(ask.query, [item], ask.instruction)
            rows.append(logits[0])
        ids += made
    return Told(ids, np.stack(rows))
