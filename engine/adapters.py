"""LoRA adapters in PEFT's file format: found, and checked before the engine sees them.

    --lora wines=/adapters/wines     then "model": "wines" in a request

vLLM applies them to the text layers only, each request by its own, in one batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from qvl.engine.checkpoint import Checkpoint, Role
from qvl.engine.errors import CheckpointError, ConfigError

_WEIGHT = re.compile(
    r"(base_model\.model\.)?(model\.language_model\.|language_model\.model\.|language_model\.|model\.)?"
    r"layers\.(?P<layer>\d+)\.(?P<part>self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.lora_(?P<side>[AB])\.weight"
)
"""Where the text layers are follows from what was trained: the whole model or, as by sentence-transformers, a
part of it. `QvlQwen3VL.hf_to_vllm_mapper` knows the same places; vLLM silently leaves out all others."""
_PLAIN_STARTS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
"""Ways to begin a training that leave the base model as it is."""


class _Unserved(msgspec.Struct, kw_only=True):
    """What gives other answers when it is left out, as vLLM 0.26 does."""

    use_dora: Any = None
    modules_to_save: Any = None
    lora_bias: Any = None
    alora_invocation_tokens: Any = None
    layer_replication: Any = None
    use_bdlora: Any = None
    use_qalora: Any = None


class _Config(_Unserved, kw_only=True):
    r: Annotated[int, msgspec.Meta(ge=1)]
    rank_pattern: dict[str, Annotated[int, msgspec.Meta(ge=1)]] | None = None
    alpha_pattern: dict[str, float] | None = None
    base_model_name_or_path: str | None = None
    init_lora_weights: bool | str | None = None
    bias: str = "none"

    def unserved(self) -> str | None:
        """A setting that no vLLM of ours applies."""
        start = self.init_lora_weights
        if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
            return "init_lora_weights"
        if self.bias != "none":
            return "bias"
        return next((name for name in _Unserved.__struct_fields__ if getattr(self, name)), None)


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: Path
    role: Role
    rank: int
    uneven: bool = False
    """Some layers have a rank or an alpha of their own."""


def find(given: Sequence[str], checkpoints: Sequence[Checkpoint]) -> list[Adapter]:
    """Raises ConfigError or CheckpointError in one line."""
    found: list[Adapter] = []
    taken = {name for each in checkpoints for name in each.names}
    for each in given:
        name, _, folder = each.partition("=")
        if not name or not folder:
            raise ConfigError(f"--lora {each}: write NAME=FOLDER")
        if name in taken:
            raise ConfigError(f"--lora {each}: there is a model called {name!r} already; choose another name")
        taken.add(name)
        path = Path(folder).expanduser()
        config = _read(path)
        base = _base(name, config, checkpoints)
        _check(path, config, base)
        rank = max((config.r, *(config.rank_pattern or {}).values()))
        uneven = bool(config.rank_pattern or config.alpha_pattern)
        found.append(Adapter(name, path, base.role, rank, uneven))
    return found


def _read(path: Path) -> _Config:
    try:
        config = msgspec.json.decode((path / "adapter_config.json").read_bytes(), type=_Config)
    except OSError:
        raise CheckpointError(f"{path}: no adapter_config.json, so not a LoRA adapter") from None
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path}/adapter_config.json: {error}") from None
    if not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{path}: no adapter_model.safetensors")
    return config


def _check(path: Path, config: _Config, base: Checkpoint) -> None:
    """What vLLM would leave out, or refuse in its own process, is refused here."""
    from safetensors import SafetensorError, safe_open

    if name := config.unserved():
        raise CheckpointError(f"{path}: adapters with {name} are not served; merge it into the model instead")
    try:
        with safe_open(path / "adapter_model.safetensors", framework="np") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path}/adapter_model.safetensors: not readable ({error})") from None
    for name, shape in shapes.items():
        matched = _WEIGHT.fullmatch(name)
        if not matched:
            raise CheckpointError(
                f"{path}: it changes {name}; vLLM adapts the text layers' projections only, by names like "
                "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight: merge it instead"
            )
        reads_states = matched["side"] == "A" and matched["part"] not in ("self_attn.o", "mlp.down")
        misfit = reads_states and shape[-1] != base.dimensions
        if misfit or int(matched["layer"]) >= base.text["num_hidden_layers"]:
            raise CheckpointError(f"{path}: {name} {tuple(shape)} is of another model than {base.name}")
    if not shapes:
        raise CheckpointError(f"{path}: it has no weights")


def _base(name: str, config: _Config, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The one that its configuration names; where one alone is served that one, unless it names the other."""
    base = Path(config.base_model_name_or_path or "").name
    for each in checkpoints:
        if base and base in (each.name, each.path.name):
            return each
    reranks, embeds = "rerank" in base.lower(), "embed" in base.lower()
    told: Role = "reranker" if reranks else "embedder"
    for each in checkpoints:
        if each.role == told if reranks != embeds else len(checkpoints) == 1:
            return each
    if reranks != embeds:
        raise ConfigError(f"--lora {name}: it is for {base}, and no {told} is served")
    raise ConfigError(
        f"--lora {name}: for the embedder or the reranker? Name the model as base_model_name_or_path "
        "in its adapter_config.json"
    )
