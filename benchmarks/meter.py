"""What a server's processes use: CPU seconds by side, memory, and how busy the GPU is."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Self

import psutil

from benchmarks import rows

ENGINE_TITLES = ("VLLM::EngineCore", "VLLM::Worker")
"""vLLM titles the processes that hold the model so; all others are the API and media side."""
_MEMORY_SECONDS = 1.0
_GPU_MILLISECONDS = 100
_NAPS, _NAP_SECONDS = 5, 0.5


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds, user and system."""

    api: float = 0.0
    engine: float = 0.0

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.api + other.api, self.engine + other.engine)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.api - other.api, self.engine - other.engine)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it; none when it has ended."""
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu(pid: int) -> Cpu:
    total = Cpu()
    for process in tree(pid):
        with suppress(psutil.Error):
            times = process.cpu_times()
            used = times.user + times.system
            total += Cpu(engine=used) if is_engine(process) else Cpu(api=used)
    return total


def is_engine(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith(ENGINE_TITLES)


def memory(pid: int) -> float:
    """GB of host memory: each shared page is divided among those that share it (PSS)."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 1e9


@cache
def waking() -> float:
    """CPU of a little work after a sleep, over that of the same work without one; asked before servers run.

    It is large on a virtual machine whose host lends a sleeping core to others: there the CPU of whatever
    waits between two requests is the machine's, not the program's.
    """
    warm = min(_little_work() for _ in range(50))
    cold = []
    for _ in range(_NAPS):
        time.sleep(_NAP_SECONDS)
        cold.append(_little_work())
    return statistics.median(cold) / warm


def _little_work() -> float:
    """Its CPU seconds."""
    start = time.thread_time()
    for _ in range(20):
        json.loads(json.dumps({"words": ["a", "b", "c"] * 20, "id": str(uuid.uuid4())}))
    return time.thread_time() - start


@dataclass(slots=True)
class Usage:
    """What one server used in one turn; complete once the turn's block has ended."""

    cpu: Cpu = field(default_factory=Cpu)
    memory_gb: float = 0.0
    gpu: list[tuple[float, float]] = field(default_factory=list)
    """Moments of the monotonic clock, and the share of the time before in which a kernel ran."""

    def gpu_busy(self, start: float, end: float) -> float | None:
        """The mean of what was said between the two."""
        shares = [share for moment, share in self.gpu if start <= moment <= end]
        return sum(shares) / len(shares) if shares else None


@contextmanager
def measured(pid: int, *, gpu: bool) -> Iterator[Usage]:
    """Memory is sampled once a second, at most; CPU seconds are the difference of two readings."""
    usage = Usage(memory_gb=memory(pid))
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_MEMORY_SECONDS):
            usage.memory_gb = max(usage.memory_gb, memory(pid))

    sampler = threading.Thread(target=sample, daemon=True)
    with _GpuWatch(gpu) as watch:
        before = cpu(pid)
        sampler.start()
        try:
            yield usage
        finally:
            usage.cpu = cpu(pid) - before
            done.set()
            sampler.join()
    usage.memory_gb = max(usage.memory_gb, memory(pid))
    usage.gpu = watch.samples


class _GpuWatch:
    """`nvidia-smi` in the background; `samples` is what it said."""

    def __init__(self, wanted: bool) -> None:
        self._program = shutil.which("nvidia-smi") if wanted else None
        self._process: subprocess.Popen[str] | None = None
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        if self._program:
            query = "--query-gpu=timestamp,utilization.gpu"
            command = [self._program, query, "--format=csv,noheader,nounits", "-i", rows.first_gpu()]
            command += ["-lms", str(_GPU_MILLISECONDS)]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            said, _ = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # a row without it is worth more than none
            self._process.kill()
            said, _ = self._process.communicate()
        self.samples = list(_sampled(said))


def _sampled(said: str) -> Iterator[tuple[float, float]]:
    """Of lines such as `2026/11/30 12:34:56.789, 87`, in local time; others, as `[N/A]`, are left out."""
    ahead = time.time() - time.monotonic()
    for line in said.splitlines():
        with suppress(ValueError):
            moment, share = line.split(",")
            at = datetime.strptime(moment.strip(), "%Y/%m/%d %H:%M:%S.%f")
            yield at.timestamp() - ahead, float(share) / 100
