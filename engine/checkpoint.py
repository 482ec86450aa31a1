"""What a checkpoint says of itself: family, role, names, sizes. Nothing is told by name
that the config can tell; a fine-tune with other sizes works."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from qvl.engine import sentence_modules, weights
from qvl.engine.config import BUNDLED, EngineConfig
from qvl.engine.demo.bundled import FOLDER
from qvl.engine.errors import CheckpointError, ConfigError, NotStarted
from qvl.engine.prompt import RERANK_SUFFIX

Role: TypeAlias = Literal["embedder", "reranker"]
FAMILY = "qwen3_vl"
ROLE = "qvl_role"
"""Key of the role in the config of a checkpoint that we wrote."""
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
_VISION = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
"""Other sizes follow the config; these are built into the pixel path."""
EMBED_LENGTH = 8192
RERANK_LENGTH = 10240 + RERANK_SUFFIX
"""The reference cuts to 10240 before it puts the last five ids back."""
_LONGEST_NAME = 256
_log = logging.getLogger("qvl.engine")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that can be served."""

    path: Path
    names: tuple[str, ...]
    """What requests may call it; answers and logs say the first."""
    role: Role
    config: dict[str, Any]
    said: str = ""
    """What the command line called it: clients of other servers send that."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def revision(self) -> str | None:
        """Its commit, where it lies in the hub's cache: a name may mean another one tomorrow."""
        return self.path.name if self.path.parent.name == "snapshots" else None

    @property
    def text(self) -> dict[str, Any]:
        text: dict[str, Any] = self.config["text_config"]
        return text

    @property
    def dimensions(self) -> int:
        return int(self.text["hidden_size"])

    @property
    def tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", self.text.get("tie_word_embeddings", False)))

    @property
    def dtype(self) -> str:
        named = self.config.get("dtype") or self.text.get("dtype") or self.config.get("torch_dtype")
        return str(named or "bfloat16").removeprefix("torch.")

    @property
    def max_length(self) -> int:
        most = EMBED_LENGTH if self.role == "embedder" else RERANK_LENGTH
        return min(most, int(self.text.get("max_position_embeddings", most + 1)) - 1)

    def kv_bytes_per_token(self, itemsize: int) -> int:
        heads = self.text.get("num_key_value_heads", self.text["num_attention_heads"])
        head_dim = self.text.get("head_dim") or self.dimensions // self.text["num_attention_heads"]
        return int(2 * self.text["num_hidden_layers"] * heads * head_dim * itemsize)


def find(config: EngineConfig) -> list[Checkpoint]:
    """The checkpoints to serve, embedder first. Raises CheckpointError or ConfigError in one line."""
    _check_names(config)
    names: dict[Role, tuple[str, ...]] = {
        "embedder": config.embedder_name,
        "reranker": config.reranker_name,
    }
    said: dict[Role, str | None] = {"embedder": config.embedder, "reranker": config.reranker}
    found: dict[Role, Checkpoint] = {}
    for role, model in [*said.items(), *_unsaid(config.models)]:
        if model is not None:
            one = of_role(role, model)
            if one.role in found:
                raise ConfigError(f"{model} is a second {one.role}; one replica serves at most one of each")
            weights.check(one.path)
            found[one.role] = replace(one, names=names[one.role] or one.names)
    if len(found) == 2 and (both := set.intersection(*({*one.names} for one in found.values()))):
        raise ConfigError(
            f"both models are called {min(both)!r}: give one another --embedder-name or --reranker-name"
        )
    if any(one.said == BUNDLED for one in found.values()):
        _log.warning("the model is the bundled tiny pair, which knows the demo's pictures alone")
    return [found[each] for each in names if each in found]


def _unsaid(models: Sequence[str]) -> Iterator[tuple[Role | None, str]]:
    """With the roles that the bundled pair has; others tell their own."""
    for model in models:
        roles: Sequence[Role | None] = get_args(Role) if model == BUNDLED else (None,)
        yield from ((role, model) for role in roles)


def _check_names(config: EngineConfig) -> None:
    """Those that were given, which requests, answers, metrics and logs hold."""
    for option, names in (("embedder", config.embedder_name), ("reranker", config.reranker_name)):
        for name in names:
            if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
                raise ConfigError(
                    f"--{option}-name must have 1 to {_LONGEST_NAME} printable characters, got {name[:80]!r}"
                )


def resolve(model: str) -> Path:
    """A folder as it is; a hub name, `NAME@REVISION` or without, through the hub's cache (downloaded if it
    must be). Raises CheckpointError, NotStarted where the hub may give it later."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    name, at, revision = model.partition("@")
    if folder.is_absolute() or model.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{model}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        skipped = ["*.pt", "*.bin", "*.gguf", "*.onnx"]
        return Path(snapshot_download(name, revision=revision if at else None, ignore_patterns=skipped))
    except RevisionNotFoundError:
        raise CheckpointError(
            f"{model}: the hub's {name} has no revision {revision!r}: give a branch, a tag or a commit of it"
        ) from None
    except Exception as error:  # among others those of its HTTP client, another one with each version
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise (NotStarted if _may_pass(error) else CheckpointError)(
            f"{model}: not a folder, and the hub did not give it ({reason}): look at the name and the "
            "network; a gated one needs HF_TOKEN, a cache that has it HF_HUB_OFFLINE=1; or give its folder"
        ) from error


def _may_pass(error: BaseException | None) -> bool:
    """Not what a hub in order has answered, nor what is wrong here: a name, a disk, HF_HUB_OFFLINE=1."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError):  # no cache has it either
        error = error.__cause__
    if error is None or isinstance(error, (OfflineModeIsEnabled, ValueError)):
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return bool(status == 429 or status >= 500)
    of_a_file = isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError)
    return isinstance(error, TimeoutError) or not of_a_file


def tell_role(folder: Path) -> Role:
    """By its config, then its sentence-transformers files, then its name."""
    config = _read(folder)
    if role := _said_role(folder, config):
        return role
    if (folder / SENTENCE_TRANSFORMERS).is_file():  # one that says no more is of an embedder
        return "embedder"
    if role := _named_role(folder, config):
        return role
    raise CheckpointError(
        f"{folder}: embedder or reranker? Say so with --embedder or --reranker (quantize: --role)"
    )


def _said_role(folder: Path, config: dict[str, Any]) -> Role | None:
    """What the checkpoint itself says."""
    if (said := config.get(ROLE)) in get_args(Role):
        return cast(Role, said)
    architectures = " ".join(config.get("architectures") or [])
    if "SequenceClassification" in architectures or "classifier_from_token" in config:
        return "reranker"
    if "Embedding" in architectures:
        return "embedder"
    with suppress(CheckpointError):
        if kind := _json(folder / SENTENCE_TRANSFORMERS).get("model_type"):
            return "reranker" if kind == "CrossEncoder" else "embedder"
    return None


def _named_role(folder: Path, config: dict[str, Any]) -> Role | None:
    name = f"{config.get('_name_or_path', '')} {folder.resolve().as_posix()}".lower()
    tail = name.rsplit("/", 1)[-1]
    for part in (tail, name):
        if ("rerank" in part) != ("embed" in part):
            return "reranker" if "rerank" in part else "embedder"
    return None


def of_role(role: Role | None, model: str) -> Checkpoint:
    """None: the role that it says it has."""
    if role is None and model == BUNDLED:
        raise ConfigError(f"{BUNDLED} is a pair: say --embedder {BUNDLED} or --reranker {BUNDLED}")
    folder = FOLDER / role if role and model == BUNDLED else resolve(model)
    config = _read(folder)
    if role is None:
        role = tell_role(folder)
    elif (own := _said_role(folder, config)) and own != role:
        raise ConfigError(f"{model} is no {role}: it says itself that it is the {own}; --{own} serves it")
    elif not own and role != (named := _named_role(folder, config) or role):
        _log.warning("%s is served as the %s, and its name is that of the %s", model, role, named)
    local = model == BUNDLED or Path(model).expanduser().is_dir()
    said = model if local else model.partition("@")[0]
    name = folder.resolve().name if local else said.rpartition("/")[2]
    sentence_modules.check(folder, config)
    sentence_modules.tell_prompts(folder, reranker=role == "reranker")
    return Checkpoint(folder, (name,), role, config, said=said)


def _read(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json")
    if config.get("model_type") != FAMILY:
        kind = config.get("model_type", "unknown")
        raise CheckpointError(f"{folder}: a {kind!r} checkpoint; qvl serves {FAMILY!r} (Qwen3-VL) only")
    if not isinstance(config.get("text_config"), dict):
        raise CheckpointError(f"{folder}: its config.json has no text_config")
    vision = config.get("vision_config") or {}
    for key, wanted in _VISION.items():
        if vision.get(key, wanted) != wanted:
            raise CheckpointError(f"{folder}: vision {key} is {vision[key]}; only {wanted} is served")
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: no {path.name}, so not a checkpoint folder") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
