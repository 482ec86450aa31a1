"""`qvl check`: the authors' answers, then the engine's, then both in a table."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from qvl.engine import checkpoint, compat
from qvl.engine.check import official
from qvl.engine.check.asks import Ask, asks, content
from qvl.engine.check.rows import Made, Model, Row, Told, rows
from qvl.engine.checkpoint import Checkpoint, Role
from qvl.engine.config import EngineConfig
from qvl.engine.engine import Engine
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.jobs.progress import duration, say
from qvl.engine.protocol import EmbedRequest, RerankRequest
from qvl.engine.start import start_engine


def check(config: EngineConfig, against: tuple[str, ...]) -> int:
    """Exit code 1 where an answer differs. Raises ConfigError or CheckpointError where none can be had."""
    began = time.monotonic()
    os.environ.setdefault("PYTHONWARNINGS", compat.QUIET)
    found = checkpoint.find(config)
    weights = originals(found, against)
    if config.lora:
        say("adapters are not compared: the models are, without them")
    told: dict[Role, list[Told]] = {}
    for each in found:
        folder = weights.get(each.role)
        told[each.role] = official.answers(
            folder or each.path,
            each.role,
            weights=folder is not None,
            pixels={"min_pixels": config.media.min_pixels, "max_pixels": config.media.max_pixels},
        )
    made, models = asyncio.run(_ours(config, found))
    listed = {
        model: [
            row
            for ask, theirs, ours in zip(asks(model.role), told[model.role], made[model.role], strict=True)
            for row in rows(model, list(ask.items), theirs, ours)
        ]
        for model in models
    }
    return _show(listed, time.monotonic() - began)


def originals(found: Sequence[Checkpoint], against: tuple[str, ...]) -> dict[Role, Path]:
    """Whose weights the authors' code loads, by role; of what is quantised it can load those of no folder."""
    known = {each.role: each.path for each in found if not _quantised(each)}
    for name in against:
        one = checkpoint.of_role(found[0].role if len(found) == 1 else None, name)
        if _quantised(one):
            raise ConfigError(f"--against {name} is quantised itself; name the original")
        known[one.role] = one.path
    for each in found:
        if each.role not in known:
            say(f"{each.name} is quantised: its ids alone are compared, without --against and its original")
    return known


def _quantised(found: Checkpoint) -> bool:
    return "quantization_config" in found.config


async def _ours(
    config: EngineConfig, found: Sequence[Checkpoint]
) -> tuple[Mapping[Role, list[Made]], list[Model]]:
    say("the engine")
    async with await start_engine(config) as engine:
        dtypes = {card.role: card.dtype for card in engine.models()}
        models = [
            Model(each.name, each.role, dtypes[each.role], bool(config.quantization) or _quantised(each))
            for each in found
        ]
        died = asyncio.ensure_future(engine.died())
        answered = asyncio.ensure_future(_answered(engine, [each.role for each in found]))
        try:
            await asyncio.wait((answered, died), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise CheckpointError(f"{died.result()}, over these inputs")
            return answered.result(), models
        finally:
            answered.cancel()
            died.cancel()


async def _answered(engine: Engine, roles: Sequence[Role]) -> dict[Role, list[Made]]:
    return {role: [await _made(engine, ask) for ask in asks(role)] for role in roles}


async def _made(engine: Engine, ask: Ask) -> Made:
    items = tuple(content(item) for item in ask.items.values())
    if ask.query is None:
        embed = EmbedRequest(input=items, on_error="skip")
        return Made(await engine.embed_ids(embed), await engine.embed(embed) if ask.answered else None)
    rerank = RerankRequest(
        query=content(ask.query), documents=items, instruction=ask.instruction, on_error="skip"
    )
    return Made(await engine.rerank_ids(rerank), await engine.rerank(rerank) if ask.answered else None)


def _show(listed: Mapping[Model, Sequence[Row]], seconds: float) -> int:
    lines = [str(line) for model, rows in listed.items() for line in (model, *rows)]
    every = [row for rows in listed.values() for row in rows]
    if wrong := [row.name for row in every if row.wrong]:
        lines.append(f"{len(wrong)} of {len(every)} DIFFER from the authors' code: {', '.join(wrong)}")
    else:
        lines.append(f"all {len(every)} as the authors' code answers them, in {duration(seconds)}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0
