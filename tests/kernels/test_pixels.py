"""Shared pixels on a GPU: what is fetched is what was written, page-locked or not. (CPU: test_arena.py.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qvl.engine.model import pixels
from qvl.engine.model.pixels import HEADER, SharedPixels

SIZES = [3072, 5 * 3072, 1_843_200 * 3]

pytestmark = pytest.mark.gpu


def write(folder: Path) -> tuple[Path, torch.Tensor, list[bytes]]:
    """The file, its table of places with generations 1, 2, 3, and what is in them."""
    generator = torch.Generator().manual_seed(0)
    media = [torch.randint(0, 256, (size,), generator=generator).to(torch.uint8) for size in SIZES]
    data, places = b"", []
    for generation, medium in enumerate(media, 1):
        places.append([len(data), len(medium), generation])
        data += generation.to_bytes(8, "little").ljust(HEADER, b"\0") + medium.numpy().tobytes()
    path = folder / "pixels"
    path.write_bytes(data)
    return path, torch.tensor(places), [medium.numpy().tobytes() for medium in media]


@pytest.mark.parametrize("folder", ["/dev/shm", None], ids=["memory", "disk"])
def test_fetch(folder: str | None, tmp_path: Path) -> None:
    path, places, media = write(Path(folder) if folder else tmp_path)
    shared = SharedPixels(str(path))
    path.unlink()
    for _ in range(2):
        flat, stale = shared.fetch(places, torch.device("cuda"))
        assert flat.cpu().numpy().tobytes() == b"".join(media) and not stale


def test_stale(tmp_path: Path) -> None:
    path, places, _ = write(tmp_path)
    places[1, 2] = 9
    assert SharedPixels(str(path)).fetch(places, torch.device("cuda"))[1] == [1]


def test_a_refused_page_lock_disturbs_nothing(tmp_path: Path) -> None:
    path, places, media = write(tmp_path)
    shared = SharedPixels(str(path))
    device = torch.device("cuda")
    for _ in range(2):  # the second is refused: the pages are locked already, or cannot be
        pixels._page_lock(shared._bytes, device)
    assert torch.ones(5, device=device).sum() == 5
    assert shared.fetch(places, device)[0].cpu().numpy().tobytes() == b"".join(media)
