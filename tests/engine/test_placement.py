"""Which GPUs the replicas of a host get, and how much of them."""

from __future__ import annotations

import pytest

from qvl.engine import machine
from qvl.engine.config import EngineConfig, MediaConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.placement import Seat, gpus_here, idle, seats, tell_of_idle, uneven, visible_gpus

PAIR = EngineConfig(embedder="a", reranker="b")


def placed(replicas: int, gpus: int, engine: EngineConfig = PAIR) -> list[Seat]:
    names = [str(i) for i in range(gpus)]
    return seats(ServerConfig(engine=engine, replicas=replicas), names, cores=16)


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("2,0", ["2", "0"]),
        (" 1 , 2 ", ["1", "2"]),
        ("1,-1,2", ["1"]),
        ("GPU-5ebe9f43,MIG-7d", ["GPU-5ebe9f43", "MIG-7d"]),
    ],
)
def test_the_gpus_are_those_that_cuda_shows(chosen: str | None, gpus: list[str]) -> None:
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert visible_gpus(environment, lambda: 3) == gpus


@pytest.mark.parametrize(
    ("replicas", "gpus", "taken"),
    [
        (2, 0, [(), ()]),
        (2, 1, [("0",), ("0",)]),
        (2, 4, [("0",), ("1",)]),
        (5, 2, [("0",), ("1",), ("0",), ("1",), ("0",)]),
    ],
)
def test_gpus_are_taken_in_turn(replicas: int, gpus: int, taken: list[tuple[str, ...]]) -> None:
    assert [seat.gpus for seat in placed(replicas, gpus)] == taken


def test_a_replica_takes_as_many_gpus_as_its_model_is_split_over() -> None:
    wide = EngineConfig(embedder="a", tensor_parallel=2)
    assert [seat.gpus for seat in placed(3, 5, wide)] == [("0", "1"), ("2", "3"), ("0", "1")]
    with pytest.raises(ConfigError, match="--tensor-parallel is 2, but the GPUs here are 1"):
        placed(2, 1, wide)


@pytest.mark.parametrize(
    ("engine", "replicas", "shares"),
    [
        (PAIR, 1, (None, None)),
        (PAIR, 2, (0.225, 0.225)),
        (PAIR, 3, (0.15, 0.15)),
        (EngineConfig(models=("a", "b")), 2, (0.225, 0.225)),
        (EngineConfig(models=("a",)), 2, (0.45, 0.45)),
        (EngineConfig(embedder="a"), 2, (0.45, 0.45)),
        (EngineConfig(embedder="a", reranker="b", embedder_memory=0.3), 2, (0.15, 0.3)),
    ],
)
def test_replicas_on_one_gpu_divide_its_memory(
    engine: EngineConfig, replicas: int, shares: tuple[float | None, float | None]
) -> None:
    for seat in placed(replicas, 1, engine):
        found = seat.engine.embedder_memory, seat.engine.reranker_memory
        assert found == (pytest.approx(shares) if shares[0] else shares)


def test_only_neighbours_divide() -> None:
    first, second, third = placed(3, 2)
    assert first.engine.embedder_memory == third.engine.embedder_memory == pytest.approx(0.225)
    assert second.engine.embedder_memory is None


def test_without_a_gpu_the_memory_is_divided() -> None:
    assert [seat.engine.embedder_memory for seat in placed(4, 0)] == [pytest.approx(0.45 / 4)] * 4
    assert [seat.engine.embedder_memory for seat in placed(1, 0)] == [None]


def test_the_cores_are_shared_out_for_decoding() -> None:
    assert {seat.engine.media.workers for seat in placed(4, 1)} == {4}
    assert {seat.engine.media.workers for seat in placed(40, 1)} == {1}
    chosen = EngineConfig(embedder="a", media=MediaConfig(workers=3))
    assert {seat.engine.media.workers for seat in placed(4, 1, chosen)} == {3}


@pytest.mark.parametrize(
    ("replicas", "gpus", "wide", "said"),
    [
        (1, 8, 1, "1 of 8 GPUs are used; --replicas 8 uses all"),
        (2, 8, 2, "4 of 8 GPUs are used; --replicas 4 uses all"),
        (3, 2, 1, ""),
        (1, 1, 1, ""),
        (1, 0, 1, ""),
        (1, 3, 2, ""),
    ],
)
def test_gpus_that_nobody_takes_are_told(replicas: int, gpus: int, wide: int, said: str) -> None:
    engine = EngineConfig(embedder="a", tensor_parallel=wide)
    assert idle(ServerConfig(engine=engine, replicas=replicas), [str(i) for i in range(gpus)]) == said


@pytest.mark.parametrize(
    ("replicas", "gpus", "wide", "said"),
    [
        (8, 7, 1, "8 replicas on 7 GPUs: some hold 2, others 1; --replicas 7 or 14 spreads them evenly"),
        (7, 8, 2, "7 replicas on 8 GPUs: some hold 2, others 1; --replicas 4 or 8 spreads them evenly"),
        (8, 4, 1, ""),
        (3, 8, 1, ""),
        (3, 1, 1, ""),
        (3, 0, 1, ""),
    ],
)
def test_gpus_with_more_replicas_than_others_are_told(
    replicas: int, gpus: int, wide: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = EngineConfig(embedder="a", tensor_parallel=wide)
    config, here = ServerConfig(engine=engine, replicas=replicas), [str(i) for i in range(gpus)]
    assert uneven(config, here) == said
    tell_of_idle(config, here)
    assert said in caplog.text


def test_they_are_counted_where_vllm_is_for_gpus(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "count", lambda: 2)
    for build, told in ((False, ""), (True, "1 of 2 GPUs are used")):
        monkeypatch.setattr(machine, "for_gpus", lambda build=build: build)
        tell_of_idle(ServerConfig(engine=PAIR), gpus_here())
        assert told in caplog.text
        assert bool(told) is bool(caplog.text)
