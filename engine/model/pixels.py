"""The engine's end of the shared pixels (`media/arena.py` is the server's)."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

HEADER = 64
"""Bytes before the pixels of a block; the first eight are its generation."""


@dataclass(frozen=True, slots=True)
class PixelsFile:
    """vLLM's `additional_config`: where a replica's pixels are.

    Each start has another path, and vLLM keeps what it compiled by the hash of all its settings.
    """

    path: str

    def compute_hash(self) -> str:
        """Of this room's code, whatever the path: what was compiled for other code of ours does not fit."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
        return hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()


class SharedPixels:
    """Maps the file while the server has it open."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self._copies: torch.cuda.Stream | None = None

    def fetch(self, places: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, list[int]]:
        """(media, 3) of offset, bytes, generation to all media's uint8, end to end, and which are stale.

        A block can only have been given away meanwhile if its request was aborted long ago. What is read
        then is named stale, so that no cache keeps it as a good answer.
        """
        rows = places.tolist()
        with self._copying(device):
            flat = torch.empty(sum(nbytes for _, nbytes, _ in rows), dtype=torch.uint8, device=device)
            before = self._stale(rows)
            start = 0
            for offset, nbytes, _ in rows:
                source = self._bytes[offset + HEADER : offset + HEADER + nbytes]
                flat[start : start + nbytes].copy_(source, non_blocking=True)
                start += nbytes
        if flat.is_cuda:
            flat.record_stream(torch.cuda.current_stream(device))
        return flat, sorted(before | self._stale(rows))

    def _stale(self, rows: list[list[int]]) -> set[int]:
        return {i for i, (offset, _, generation) in enumerate(rows) if self._generation(offset) != generation}

    def _generation(self, offset: int) -> int:
        return int.from_bytes(self._map[offset : offset + 8], "little", signed=True)

    @contextmanager
    def _copying(self, device: torch.device) -> Iterator[None]:
        """Copies in here are over when it ends; on CUDA they have not waited for the model's own work.

        A stream of their own runs beside the step that the GPU is busy with. Generations are checked after
        the copies, so the host has to see them end.
        """
        if device.type != "cuda":
            yield
            return
        if self._copies is None:
            _page_lock(self._bytes, device)
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch declares no types here
        with torch.cuda.stream(self._copies):
            yield
        self._copies.synchronize()


def _page_lock(host: torch.Tensor, device: torch.device) -> None:
    """Let the GPU copy from these pages itself. Where it may not (say, a file on disk), copies are slower."""
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch declares no types here
    with torch.cuda.device(device):
        if int(cudart.cudaHostRegister(host.data_ptr(), host.numel(), 0)) == 0:
            return
        # CUDA keeps the error for the next launch to report: let that be one whose report is not read.
        with suppress(RuntimeError):
            torch.ones(1, device=device)
