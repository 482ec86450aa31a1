"""LoRA adapters in PEFT's file format: found, and checked before the engine sees them.

    --lora wines=/adapters/wines     then "model": "wines" in a request

vLLM applies them to the text layers only, each request by its own, in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from qvl.engine.checkpoint import Checkpoint, Role
from qvl.engine.errors import CheckpointError, ConfigError

_LAYERS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: Path
    role: Role
    rank: int


def find(given: Sequence[str], checkpoints: Sequence[Checkpoint]) -> list[Adapter]:
    """Raises ConfigError or CheckpointError in one line."""
    found: list[Adapter] = []
    taken = {each.name for each in checkpoints}
    for each in given:
        name, _, folder = each.partition("=")
        if not name or not folder:
            raise ConfigError(f"--lora {each}: write NAME=FOLDER")
        if name in taken:
            raise ConfigError(f"--lora {each}: there is a model called {name!r} already; choose another name")
        taken.add(name)
        path = Path(folder).expanduser()
        config = _read(path)
        found.append(Adapter(name, path, _role(name, config, checkpoints), _rank(path, config)))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        config = msgspec.json.decode((path / "adapter_config.json").read_bytes(), type=dict[str, Any])
    except OSError:
        raise CheckpointError(f"{path}: no adapter_config.json, so not a LoRA adapter") from None
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path}/adapter_config.json: not valid JSON ({error})") from None
    if not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{path}: no adapter_model.safetensors")
    return config


def _rank(path: Path, config: dict[str, Any]) -> int:
    """The largest. What vLLM would leave out, or refuse in its own process, is refused here."""
    from safetensors import SafetensorError, safe_open

    if config.get("use_dora") or config.get("modules_to_save") or config.get("bias", "none") != "none":
        raise CheckpointError(f"{path}: DoRA, biases and saved modules are not served; merge it instead")
    ranks = {int(config.get("r", 0)), *map(int, (config.get("rank_pattern") or {}).values())}
    try:
        with safe_open(path / "adapter_model.safetensors", framework="np") as file:
            names = list(file.keys())
    except SafetensorError as error:
        raise CheckpointError(f"{path}/adapter_model.safetensors: not readable ({error})") from None
    for name in names:
        if "visual" in name or name.split(".lora_")[0].rpartition(".")[2] not in _LAYERS:
            raise CheckpointError(f"{path}: it changes {name}; vLLM adapts the text layers' projections only")
    if not names or min(ranks) < 1:
        raise CheckpointError(f"{path}: it has no rank or no weights")
    return max(ranks)


def _role(name: str, config: dict[str, Any], checkpoints: Sequence[Checkpoint]) -> Role:
    if len(checkpoints) == 1:
        return checkpoints[0].role
    base = Path(str(config.get("base_model_name_or_path") or "")).name
    for each in checkpoints:
        if base and base in (each.name, each.path.name):
            return each.role
    if ("rerank" in base.lower()) != ("embed" in base.lower()):
        return "reranker" if "rerank" in base.lower() else "embedder"
    raise ConfigError(
        f"--lora {name}: for the embedder or the reranker? Name the model as base_model_name_or_path "
        "in its adapter_config.json"
    )
