"""What a checkpoint says of itself: family, role, sizes, tokenizer, template. Nothing is told by name
that the config can tell; a fine-tune with other sizes works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from qvl.engine import sentence_modules
from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.prompt import END, FRAME, IMAGE, PADS, START, Template
from qvl.engine.tokens import PromptTokenizer, SpecialIds

Role: TypeAlias = Literal["embedder", "reranker"]
FAMILY = "qwen3_vl"
ROLE = "qvl_role"
"""Key of the role in the config of a checkpoint that we wrote."""
_VISION = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
"""Other sizes follow the config; these are built into the pixel path."""
_MEAN = 0.5
_SAMPLE = "Any text."
EMBED_LENGTH = 8192
RERANK_LENGTH = 10240 + PromptTokenizer.SUFFIX
"""The reference cuts to 10240 before it puts the last five ids back."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that can be served."""

    path: Path
    name: str
    role: Role
    config: dict[str, Any]

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


@dataclass(frozen=True, slots=True)
class TextSide:
    """What turns requests into token ids for one checkpoint."""

    template: Template
    tokenizer: PromptTokenizer
    yes: int
    no: int


def find(config: EngineConfig) -> list[Checkpoint]:
    """The checkpoints to serve, embedder first. Raises CheckpointError or ConfigError in one line."""
    names: dict[Role, str | None] = {"embedder": config.embedder_name, "reranker": config.reranker_name}
    said: dict[Role, str | None] = {"embedder": config.embedder, "reranker": config.reranker}
    found: dict[Role, Checkpoint] = {}
    for role, model in [*said.items(), *((None, model) for model in config.models)]:
        if model is not None:
            one = of_role(role, model)
            if one.role in found:
                raise ConfigError(f"{model} is a second {one.role}; one replica serves at most one of each")
            found[one.role] = replace(one, name=names[one.role] or one.name)
    return [found[each] for each in names if each in found]


def resolve(model: str) -> Path:
    """A folder as it is; a hub name through the hub's cache (downloaded if it must be)."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise CheckpointError(f"{model}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, ignore_patterns=["*.pt", "*.bin", "*.gguf", "*.onnx"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{model}: not a folder, and the hub did not give it ({reason})") from error


def tell_role(folder: Path) -> Role:
    """By its config, then its sentence-transformers files, then its name."""
    config = _read(folder)
    if (said := config.get(ROLE)) in get_args(Role):
        return cast(Role, said)
    architectures = " ".join(config.get("architectures") or [])
    if "SequenceClassification" in architectures or "classifier_from_token" in config:
        return "reranker"
    if "Embedding" in architectures:
        return "embedder"
    if (folder / "config_sentence_transformers.json").is_file():
        kind = _json(folder / "config_sentence_transformers.json").get("model_type")
        return "reranker" if kind == "CrossEncoder" else "embedder"
    name = f"{config.get('_name_or_path', '')} {folder.resolve().as_posix()}".lower()
    tail = name.rsplit("/", 1)[-1]
    for part in (tail, name):
        if ("rerank" in part) != ("embed" in part):
            return "reranker" if "rerank" in part else "embedder"
    raise CheckpointError(
        f"{folder}: embedder or reranker? Say so with --embedder or --reranker (quantize: --role)"
    )


def load_text_side(checkpoint: Checkpoint) -> TextSide:
    """Loads the checkpoint's processor once (seconds) and keeps only the fast tokenizer."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(checkpoint.path), local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{checkpoint.path}: its processor does not load ({error})") from error
    means = [*processor.image_processor.image_mean, *processor.image_processor.image_std]
    if any(value != _MEAN for value in means):
        raise CheckpointError(f"{checkpoint.path}: its image mean and std are not {_MEAN}, which pixels need")
    slow = processor.tokenizer
    tokenizer = type(slow.backend_tokenizer).from_str(slow.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = SpecialIds(
        image=checkpoint.config.get("image_token_id", processor.image_token_id),
        video=checkpoint.config.get("video_token_id", processor.video_token_id),
        all=frozenset(slow.all_special_ids),
    )
    # transformers makes an empty one where its files are missing.
    known = [tokenizer.token_to_id(pad) for pad in PADS] == [special.image, special.video]
    if not known or tokenizer.decode(tokenizer.encode(_SAMPLE, add_special_tokens=False).ids) != _SAMPLE:
        raise CheckpointError(
            f"{checkpoint.path}: its tokenizer is not its model's; copy tokenizer.json and "
            "tokenizer_config.json from the base model"
        )
    reranker = checkpoint.role == "reranker"
    yes, no = (
        sentence_modules.tokens(checkpoint.path, checkpoint.config, slow.get_vocab()) if reranker else (0, 0)
    )
    return TextSide(
        template=_template(processor, checkpoint.path),
        tokenizer=PromptTokenizer(tokenizer, special, max_length=checkpoint.max_length, reranker=reranker),
        yes=yes,
        no=no,
    )


def _template(processor: Any, path: Path) -> Template:
    """Cut the chat template at two markers, then prove on a conversation that the pieces rebuild it."""
    from jinja2 import TemplateError

    def render(system: str, user: list[dict[str, str]]) -> str:
        talk = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": user},
        ]
        try:
            return str(processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its chat template fails ({error}); copy chat_template.jinja from the base model"
            ) from error

    head, _, rest = render("\u27e6system\u27e7", [{"type": "text", "text": "\u27e6user\u27e7"}]).partition(
        "\u27e6system\u27e7"
    )
    middle, _, tail = rest.partition("\u27e6user\u27e7")
    template = Template(head, middle, tail)
    mixed = [{"type": "video", "video": "v"}, {"type": "image", "image": "i"}]
    mixed += [{"type": "text", "text": text} for text in (" a\n", "", "\n<Document>:", "NULL ")]
    expected = template.render(" s. ", f"{FRAME}{IMAGE} a\n\n<Document>:NULL ")
    if render(" s. ", mixed) != expected:
        raise CheckpointError(f"{path}: its chat template is not Qwen3-VL's, so prompts cannot be exact")
    return replace(template, video_open=START, video_close=END) if _nests_videos(processor) else template


def _nests_videos(processor: Any) -> bool:
    """Whether this transformers' processor leaves the chat template's markers around a video's frames.

    Asked by showing it a video of one pair of frames: what the official code does depends on it.
    """
    import torch

    shown = processor(
        text=[FRAME],
        videos=[torch.zeros(2, 3, 32, 32, dtype=torch.uint8)],
        video_metadata=[{"fps": 2.0, "frames_indices": [0, 1], "total_num_frames": 2}],
        do_resize=False,
        do_sample_frames=False,
    )
    marker = processor.tokenizer.convert_tokens_to_ids(START)
    return [int(i) for i in shown["input_ids"][0]].count(marker) == 2


def of_role(role: Role | None, model: str) -> Checkpoint:
    """None: the role that it says it has."""
    folder = resolve(model)
    role = role or tell_role(folder)
    own = Path(model).expanduser().resolve() if Path(model).expanduser().is_dir() else Path(model)
    config = _read(folder)
    sentence_modules.check(folder, config)
    sentence_modules.tell_prompts(folder, reranker=role == "reranker")
    return Checkpoint(folder, own.name, role, config)


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
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
