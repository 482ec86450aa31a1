"""The pair's checkpoints before and after training: files, first weights, and the step of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pair.tiny import model_config, text_config, vision_config, write_texts
from benchmarks.pair.vocabulary import TEXT, train_tokenizer
from qvl.engine.checkpoint import ROLE, Role
from qvl.engine.demo import tasks

HIDDEN, LAYERS, VISION_HIDDEN, VISION_DEPTH = 128, 3, 128, 2
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}
"""Values as wide as the hidden state: narrower ones would be a bottleneck of each layer."""
MERGED = 1000
RATE, WARM_UP, COOLING = 2.5e-3, 100, 0.3
LAST = ("o_proj", "down_proj", "attn.proj", "mlp.linear_fc2")
"""Matrices whose output is added to what goes past them."""
STATE = "training.pt"
"""Beside the weights while training: what a stopped run goes on from."""


def write_untrained(folder: Path, role: Role, *, append_end: bool, layers: int = LAYERS) -> None:
    """Everything but weights. The tokenizer knows the world's words whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(append_end=append_end, text=_text(), merged=MERGED)
    ids = {str(token): index for index, token in tokenizer.get_added_tokens_decoder().items()}
    rows = -(-tokenizer.get_vocab_size() // 64) * 64
    text = text_config(ids, rows, True, HIDDEN, layers) | HEADS
    config = model_config(ids, text, vision_config(HIDDEN, VISION_HIDDEN, VISION_DEPTH))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_texts(folder, config | {ROLE: role})


def build(folder: Path, seed: int) -> Any:
    """Qwen3-VL in float32: from the folder's weights, or anew."""
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    if (folder / "model.safetensors").is_file():
        model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    else:
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder)).float()
        _initialise(model)
    model.model.visual.pos_embed.weight.requires_grad_(False)
    return model


def save(model: Any, folder: Path) -> None:
    """bfloat16 under the published names; the tied head is not written twice."""
    from safetensors.torch import save_file

    named = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    del named["lm_head.weight"]
    save_file(named, folder / "model.safetensors", {"format": "pt"})


@dataclass
class Optimiser:
    """AdamW with warm-up and a cosine over the number of steps.

    With a longer `horizon` the cosine is only begun, and the rate falls to nothing in the last three tenths:
    what comes before them is the same however long the run is to be.
    """

    model: Any
    steps: int
    rate: float = RATE
    horizon: int | None = None

    def __post_init__(self) -> None:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        flat, wide = [p for p in trained if p.ndim < 2], [p for p in trained if p.ndim >= 2]
        groups = [{"params": wide, "weight_decay": 0.01}, {"params": flat, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98), fused=True)

    def save(self, folder: Path, at: int, rng: np.random.Generator) -> None:
        """Weights, and the state after step `at`."""
        state = {"model": self.model.state_dict(), "adam": self.adam.state_dict(), "at": at}
        state |= {"rng": rng.bit_generator.state, "torch": torch.get_rng_state()}
        torch.save(state, folder / f"{STATE}.part")
        (folder / f"{STATE}.part").replace(folder / STATE)

    def resume(self, folder: Path, rng: np.random.Generator) -> int | None:
        """The step to go on with; None where nothing was saved."""
        if not (folder / STATE).is_file():
            return None
        state = torch.load(folder / STATE, weights_only=False)
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch"])
        return int(state["at"]) + 1

    def step(self, loss: torch.Tensor, at: int) -> None:
        warm = min(1.0, (at + 1) / WARM_UP)
        cool = min(1.0, (self.steps - at) / (COOLING * self.steps)) if self.horizon else 1.0
        turn = math.pi * at / (self.horizon or self.steps)
        for group in self.adam.param_groups:
            group["lr"] = self.rate * warm * (0.02 + 0.49 * (1 + math.cos(turn))) * cool
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()


def _initialise(model: Any) -> None:
    """Variance-keeping matrices: at these widths the usual 0.02 is a nearly linear net that starts slowly."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "pos_embed" in name:
                weight.copy_(_places(*weight.shape))
            elif "embed" in name and "patch" not in name:
                weight.normal_(0, 0.1)
            elif weight.ndim >= 2:
                gain = 0.7 if any(part in name for part in LAST) else 1.0
                weight.normal_(0, gain / weight[0].numel() ** 0.5)


def _places(count: int, size: int) -> torch.Tensor:
    """(count, size): smooth over the square and left as it is, so that what is learned on a small grid of
    patches holds on a large one, which reads other rows."""
    side = round(count**0.5)
    line = torch.linspace(0, 1, side)
    y, x = (each.reshape(-1, 1) for each in torch.meshgrid(line, line, indexing="ij"))
    waves = [torch.cos(math.pi * k * axis) for k in range(1, 5) for axis in (x, y)]
    waves += [torch.cos(math.pi * i * x) * torch.cos(math.pi * j * y) for i in (1, 2) for j in (1, 2)]
    basis = torch.cat(waves, 1)
    return basis @ torch.randn(basis.shape[1], size) * 0.2


def _text() -> str:
    """Captions and prompts, the prompts often enough to become whole words."""
    rng = np.random.default_rng(3)
    lines = [TEXT] * 20
    for task in ("text to image", "page", "mixed", "video"):
        for example in tasks.sample(task, rng, 300):
            lines += [example.query.text, f"{example.query.instruction}"]
    lines += [tasks.MATCH_COLOURS, tasks.MATCH_SHAPES] * 50
    return "\n".join(lines)
