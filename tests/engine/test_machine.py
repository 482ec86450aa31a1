"""What this machine has, also where its tools are missing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvl.engine import machine
from qvl.engine.machine import Gpu, parse_gpus


def test_gpus_are_read_from_nvidia_smi() -> None:
    listing = (
        "NVIDIA H200, 143771, 9.0, 580.95.05\nNVIDIA A100-SXM4-80GB, 81920, 8.0, 580.95.05\n"
        "[Unknown Error], [N/A], [N/A], 580.95.05\n\n"
    )
    assert parse_gpus(listing) == [
        Gpu("NVIDIA H200", 143_771 << 20, fp8=True, driver="580.95.05"),
        Gpu("NVIDIA A100-SXM4-80GB", 81_920 << 20, fp8=False, driver="580.95.05"),
    ]


@pytest.fixture
def no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    machine.gpus.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    yield
    machine.gpus.cache_clear()


@pytest.mark.usefixtures("no_tool")
def test_gpus_are_counted_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    assert machine.gpus() == ()
    assert machine.count() == 2


@pytest.mark.usefixtures("no_tool")
def test_a_tool_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor is its end waited for, which may never come."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machine, "_ANSWER_SECONDS", 0.1)
    killed: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: killed.append(process))
    assert machine.gpus() == ()
    monkeypatch.undo()
    (hung,) = killed
    with hung:
        hung.kill()


@pytest.mark.usefixtures("no_tool")
def test_a_machine_without_gpus_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_DEVICES", tmp_path / "none")
    assert machine.count() == 0


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("", 8), (None, 8)],
)
def test_a_container_has_the_cores_of_its_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert machine.cores() == cores


@pytest.mark.parametrize(("limit", "share"), [("max", 1), ("1048576", 0), ("", 1), (None, 1)])
def test_a_container_has_the_memory_of_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, share: int
) -> None:
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "memory.max")
    whole = machine.host_memory()
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert machine.host_memory() == (whole if share else 1 << 20)
