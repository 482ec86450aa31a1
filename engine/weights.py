"""Whether a checkpoint's weights are all there, by their files' sizes: vLLM would tell a minute later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from qvl.engine.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_OTHERS = ("*.bin", "*.pt")
"""What vLLM reads where there is no safetensors file."""
_LENGTH = 8
"""Bytes before the header of a file: how long that is."""
_LONGEST_HEADER = 100_000_000
"""As in the safetensors library."""


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def check(folder: Path) -> None:
    """Raises CheckpointError, one line, for a file that is missing, cut off or none of weights."""
    files = list(_files(folder))
    if not files and not any(any(folder.glob(kind)) for kind in _OTHERS):
        raise CheckpointError(f"{folder}: no weights (*.safetensors): download them")
    for file in files:
        try:
            size = file.stat().st_size
            wanted = _size(file)
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}: download it again") from None
        except (msgspec.MsgspecError, ValueError):
            raise CheckpointError(
                f"{file} ({size:,} bytes) is not a safetensors file: download it again"
            ) from None
        if size < wanted:
            raise CheckpointError(f"{file} is cut off ({size:,} of {wanted:,} bytes): download it again")


def _files(folder: Path) -> Iterator[Path]:
    """Those that vLLM reads: of the index, if there is one."""
    if not (folder / INDEX).is_file():
        return iter(sorted(folder.glob("*.safetensors")))
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=_Index)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{folder / INDEX}: {error}: download it again") from None
    return (folder / name for name in sorted(set(index.weight_map.values())))


def _size(file: Path) -> int:
    """What its header says that it has. Raises ValueError or msgspec's errors where it has none."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(length)
        header = msgspec.json.decode(opened.read(length), type=dict[str, Any])
    header.pop("__metadata__", None)
    tensors = msgspec.convert(header, dict[str, _Tensor]).values()
    return _LENGTH + length + max((each.data_offsets[1] for each in tensors), default=0)
