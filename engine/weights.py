"""Whether a checkpoint's weights are all there, by their files' headers: vLLM would tell a minute later."""

from __future__ import annotations

from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from qvl.engine.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_OTHERS = ("*.bin", "*.pt")
"""What vLLM reads where there is no safetensors file."""


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def check(folder: Path) -> None:
    """Raises CheckpointError, one line, for a file that is missing, cut off or none of weights."""
    found = files(folder)
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
