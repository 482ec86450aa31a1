"""From one checkpoint folder to another, a file of weights at a time."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qvl.engine import weights
from qvl.engine.checkpoint import ROLE, Checkpoint
from qvl.engine.errors import CheckpointError
from qvl.engine.quantize.schemes import Scheme, compressed, config_of, is_quantised

_SINGLE = "model.safetensors"
"""What Hugging Face's code reads where there is no index."""
Report = Callable[[int], None]
"""Told the bytes of each tensor that is done."""


def write(
    source: Path,
    out: Path,
    scheme: Scheme,
    *,
    vision: bool,
    instead: Mapping[str, torch.Tensor],
    report: Report,
) -> int:
    """Fill the folder `out`; `instead` holds weights that take the place of the file's. Returns how many
    matrices were quantised. No more than one file of weights is in memory. Raises CheckpointError."""
    if not (found := weights.files(source)):
        raise CheckpointError(f"{source}: no *.safetensors, so there are no weights to quantise")
    _copy_others(source, out)
    places: dict[str, str] = {}
    done = size = 0
    for file in found:
        tensors: dict[str, torch.Tensor] = {}
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                given = opened.get_tensor(name)
                weight = _searched(name, given, instead).to(given.dtype)
                if is_quantised(name, weight, vision=vision):
                    stem = name.removesuffix("weight")
                    tensors |= {f"{stem}{part}": each for part, each in compressed(weight, scheme).items()}
                    done += 1
                else:
                    tensors[name] = weight
                report(given.nbytes)
        made = out / file.name
        save_file({name: each.contiguous() for name, each in tensors.items()}, made, {"format": "pt"})
        made.chmod(stat.S_IMODE(out.stat().st_mode) & 0o666)  # the library's are its owner's alone
        places |= dict.fromkeys(tensors, file.name)
        size += sum(each.nbytes for each in tensors.values())
    if set(places.values()) != {_SINGLE}:
        _write_json(out / weights.INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    return done


def _copy_others(source: Path, out: Path) -> None:
    """All but weights, and the settings of sentence-transformers' modules."""
    for file in [*source.iterdir(), *source.glob("[0-9]_*/config.json")]:
        if file.is_file() and file.suffix != ".safetensors" and file.name != weights.INDEX:
            copy = out / file.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)  # not its mode: it may be read-only


def _searched(name: str, given: torch.Tensor, instead: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """By the names of the whole model, where the file may have those of its `model`."""
    found = instead.get(name, instead.get(f"model.{name}"))
    if instead and found is None and "layers." in name:
        raise CheckpointError(
            f"{name} is not in the searched model, so its scales would be lost; use fp8 or int8"
        )
    return given if found is None else found


def write_config(source: Checkpoint, out: Path, scheme: Scheme, *, vision: bool) -> None:
    """With the role, which the folder's new name need not tell."""
    config = {**source.config, ROLE: source.role, "quantization_config": config_of(scheme, vision=vision)}
    _write_json(out / "config.json", config)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
