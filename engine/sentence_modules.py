"""What sentence-transformers has written beside a checkpoint: the modules that follow the model, and prompts.

Served are those that the published models have: last-token pooling, normalisation, and the logit of one token
less another's. What would give other answers is refused by name. Prompts are a caller's choice, so they are
told of, not refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from qvl.engine.dialects import tasks
from qvl.engine.errors import CheckpointError
from qvl.engine.prompt import EMBED_INSTRUCTION, RERANK_INSTRUCTION, closed

_LAST = ("lasttoken", ["lasttoken"], ["pooling_mode_lasttoken"])
"""The same, as the new and the old files have it."""
_log = logging.getLogger("qvl.engine")


class _Module(msgspec.Struct):
    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]


class _Prompts(msgspec.Struct):
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None


class _LogitScore(msgspec.Struct):
    true_token_id: int
    false_token_id: int


def check(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError when more than the model and what is served of modules makes its answers."""
    for module in _following(folder):
        if module.kind == "Pooling":
            pooling = _settings(folder, module, "pooling_mode") or {"pooling_mode": "lasttoken"}
            old = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True]
            mode = pooling.get("pooling_mode") or old or "mean"
            if mode not in _LAST:
                raise CheckpointError(f"{folder}: its pooling ({module.path}) is {mode}; served is lasttoken")
        elif module.kind not in ("Normalize", "LogitScore"):
            raise CheckpointError(
                f"{folder}: in its modules.json a {module.kind} ({module.path}) follows the model; that is "
                "not served: use sentence-transformers"
            )
    if "SequenceClassification" in " ".join(config.get("architectures") or []) and _has_head(folder):
        raise CheckpointError(
            f"{folder}: it scores by a head of its own, score.weight; served are rerankers that say yes or "
            "no by their lm_head: train one of those"
        )


def tell_prompts(folder: Path, *, reranker: bool) -> None:
    """One warning of all that are not what is asked here under their names."""
    file = folder / "config_sentence_transformers.json"
    try:
        said = msgspec.json.decode(file.read_bytes(), type=_Prompts)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        _log.warning("%s: its prompts are unknown and not applied (%s)", file, error)
        return
    ours: dict[tasks.Task, str | None] = {} if reranker else tasks.INSTRUCTIONS
    default = RERANK_INSTRUCTION if reranker else EMBED_INSTRUCTION
    others = []
    for name, text in (said.prompts or {}).items():
        asked = {ours.get(cast("tasks.Task", name)) or default}
        if name == said.default_prompt_name:
            asked.add(default)  # here, of who names none
        if closed(text) and asked != {closed(text)}:
            others.append(f"{name!r}{' (its default)' if name == said.default_prompt_name else ''}")
    if others:
        _log.warning(
            "%s: its prompts %s are not qvl's own and not applied; send such a text as `instruction`",
            file,
            ", ".join(others),
        )


def tokens(folder: Path, config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> tuple[int, int]:
    """(yes, no): a reranker's score is the logit of the first less that of the second.

    What sentence-transformers was told goes before what vLLM is. Raises CheckpointError.
    """
    no, yes = "no", "yes"
    words = {number: word for word, number in vocabulary.items()}
    try:
        if config.get("classifier_from_token"):
            no, yes = msgspec.convert(config["classifier_from_token"], tuple[str, str])
        for module in _following(folder):
            if module.kind == "LogitScore" and (said := _settings(folder, module, "true_token_id")):
                score = msgspec.convert(said, _LogitScore)
                yes, no = (
                    words.get(each, f"#{each}") for each in (score.true_token_id, score.false_token_id)
                )
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{folder}: served are scores of one token against another ({error})") from None
    for word in (yes, no):
        if word not in vocabulary:
            raise CheckpointError(f"{folder}: its vocabulary has no {word!r}, so it cannot score")
    if (yes, no) != ("yes", "no"):
        _log.warning("%s: it scores %r against %r; it is asked as Qwen3-VL-Reranker is", folder, yes, no)
    return vocabulary[yes], vocabulary[no]


def _following(folder: Path) -> list[_Module]:
    """All but the first, which is the model, whatever class loads it there."""
    file = folder / "modules.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[_Module])[1:]
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _settings(folder: Path, module: _Module, key: str) -> dict[str, Any] | None:
    """None when none begins with `key`: Qwen3-VL-Reranker-8B's were not where its modules.json said."""
    file = folder / module.path / "config.json"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError):
        found = {}
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if not any(name.startswith(key) for name in found):
        _log.warning("%s has no %s, so the %s is taken for Qwen3-VL's own", file, key, module.kind)
        return None
    return found


def _has_head(folder: Path) -> bool:
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as weights:
            if any(name.endswith("score.weight") for name in weights.keys()):  # noqa: SIM118 - not a mapping
                return True
    return False
