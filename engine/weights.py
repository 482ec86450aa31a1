"""Whether a checkpoint's weights are all there, by their files' headers: vLLM would tell a minute later."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from qvl.engine.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_OTHERS = ("*.bin", "*.pt")
"""What vLLM reads where there is no safetensors file."""
_SHARD = re.compile(r"(.+-)[0-9]{5}-of-([0-9]{5})(\.safetensors)")


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def check(folder: Path) -> None:
    """Raises CheckpointError, one line, for a file that is missing, cut off or none of weights."""
    found = files(folder)
    if found and not (folder / INDEX).is_file():
        _all_shards(folder, {file.name for file in found})
    if not found and not any(any(folder.glob(kind)) for kind in _OTHERS):
        raise CheckpointError(f"{folder}: no weights (*.safetensors): download them")
    for file in found:
        try:
            size = file.stat().st_size
            # Reads the header alone, whose tensors have to end where the file does.
            with safe_open(file, framework="np"):
                pass
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror or error}: download it again") from None
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} ({size:,} bytes) is not a whole safetensors file ({error}): download it again"
            ) from None


def _all_shards(folder: Path, names: set[str]) -> None:
    """Of files that say how many they are: without an index nobody else would miss one."""
    for name in names:
        if shard := _SHARD.fullmatch(name):
            start, count, end = shard.groups()
            wanted = {f"{start}{number:05}-of-{count}{end}" for number in range(1, int(count) + 1)}
            if lacking := sorted(wanted - names):
                raise CheckpointError(f"{folder / lacking[0]} is missing: download it again")


def size(folder: Path) -> int:
    """Bytes of the safetensors files."""
    return sum(file.stat().st_size for file in files(folder))


def files(folder: Path) -> list[Path]:
    """Those that vLLM reads: of the index, if there is one. Raises CheckpointError where it is broken."""
    if not (folder / INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=_Index)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{folder / INDEX}: {error}: download it again") from None
    return [folder / name for name in sorted(set(index.weight_map.values()))]
