"""GPUs of an actor, and the card that some of them share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qvl.engine import machine
from qvl.ray_serve import card


@pytest.mark.parametrize(
    ("asked", "there", "build", "gpus"),
    [(0.5, 0, False, 0.5), (None, 4, False, 2), (None, 0, True, 2), (None, 0, False, 0), (0, 4, True, 0)],
)
def test_gpus_are_asked_for_before_there_are_any(
    monkeypatch: pytest.MonkeyPatch, asked: float | None, there: float, build: bool, gpus: float
) -> None:
    """A cluster that scales brings a GPU when somebody asks for it."""
    monkeypatch.setattr(machine, "for_gpus", lambda: build)
    assert card.gpus_of(asked, 2, there) == gpus


@pytest.mark.parametrize(("gpus", "together"), [(0.5, 1), (1, 3), (0, 3)])
def test_only_those_that_share_a_card_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: float, together: int
) -> None:
    monkeypatch.setattr(card.tempfile, "gettempdir", lambda: str(tmp_path))
    inside = most = 0

    async def load() -> None:
        nonlocal inside, most
        async with card.alone_on_the_card(gpus):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.05)
            inside -= 1

    async def all_three() -> None:
        await asyncio.gather(*(load() for _ in range(3)))

    asyncio.run(all_three())
    assert most == together
