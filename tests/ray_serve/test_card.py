"""GPUs of an actor, and the card that some of them share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qvl.engine import machine
from qvl.engine.config import EngineConfig
from qvl.engine.errors import ConfigError
from qvl.engine.jobs.settings import JobConfig
from qvl.ray_serve import card
from qvl.ray_serve.config import BulkConfig
from qvl.ray_serve.workers import Order, room


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


@pytest.mark.parametrize(
    ("parts", "cards"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0.1] * 10, 1),
        ([0.1] * 11, 2),
        ([0.6] * 3, 3),
        ([0.3, 0.6] * 2, 2),
        ([2, 1, 0.5], 4),
    ],
)
def test_no_share_straddles_two_cards(parts: list[float], cards: int) -> None:
    assert card.cards_for(parts) == cards


@pytest.mark.parametrize(
    ("most", "own", "node", "found"),
    [
        (12, {"CPU": 1, "GPU": 1}, {"CPU": 96, "GPU": 8}, 8),
        (12, {"CPU": 1, "GPU": 0.5}, {"CPU": 96, "GPU": 1}, 2),
        (3, {"CPU": 1, "GPU": 1}, {"CPU": 96, "GPU": 8}, 3),
        (8, {"CPU": 1, "GPU": 2}, {"CPU": 96, "GPU": 8}, 4),
        (8, {"CPU": 16, "GPU": 1}, {"CPU": 32, "GPU": 8}, 2),
        (8, {"CPU": 0.1}, {"CPU": 0.5}, 1),
        (8, {}, {"CPU": 4}, 8),
    ],
)
def test_replicas_of_a_node_are_as_many_as_it_has_room_for(
    most: int, own: dict[str, float], node: dict[str, float], found: int
) -> None:
    assert card.room_for(most, own, node) == found


@pytest.mark.parametrize(
    ("asked", "there", "workers"),
    [(0.5, 2, (0.5, 4)), (0.6, 2, (0.6, 2)), (None, 4, (1, 4)), (0.1, 1, (0.1, 10)), (None, 0, (0, 1))],
)
def test_workers_of_a_corpus(
    monkeypatch: pytest.MonkeyPatch, asked: float | None, there: float, workers: tuple[float, int]
) -> None:
    monkeypatch.setattr(machine, "for_gpus", lambda: False)
    assert room(order(), BulkConfig(worker_gpus=asked), there) == workers


def test_a_worker_that_would_be_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "for_gpus", lambda: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="a worker takes 1 GPUs and there are 0"):
        room(order(), BulkConfig(), 0)
    assert room(order(), BulkConfig(ray_address="auto"), 0) == (1, 1)
    assert "waiting for more" in capsys.readouterr().err


def order() -> Order:
    return Order(
        out=Path("out"),
        job=JobConfig(),
        engine=EngineConfig(embedder="a"),
        settings={},
        instruction=None,
        dimensions=None,
    )


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
