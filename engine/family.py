"""`qvl models`: what of the published family fits this machine, from the models' own dimensions.

The estimate counts what is in memory at once: weights, and the KV cache and activations of one full engine
step, which is longer than any item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qvl.engine.config import SHARE
from qvl.engine.machine import Gpu, gpus, host_memory

GIB = 1 << 30

Precision: TypeAlias = Literal["bf16", "fp8"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8")

STEP_TOKENS = 16_384
"""`max_batched_tokens` on a GPU."""
CONTEXT = 3 * GIB // 2
"""CUDA context, graphs and workspaces of one engine process."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The published dimensions; everything else follows."""

    name: str
    role: Literal["embedder", "reranker"]
    layers: int
    hidden: int
    ffn: int
    tied: bool
    vision_layers: int
    vision_hidden: int
    vision_ffn: int
    heads: int
    kv_heads: int = 8
    head: int = 128
    vocabulary: int = 151_936
    deepstack: int = 3

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def text(self) -> int:
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def vision(self) -> int:
        width = self.vision_hidden
        blocks = self.vision_layers * (4 * width * width + 2 * width * self.vision_ffn)
        merged = 4 * width
        mergers = (1 + self.deepstack) * (merged * merged + merged * self.hidden)
        return blocks + mergers + 3 * 2 * 16 * 16 * width + 48 * 48 * width

    @property
    def parameters(self) -> int:
        """Of the checkpoint, whose head may be a matrix of its own."""
        return self.embedding * (1 if self.tied else 2) + self.text + self.vision

    def weights(self, precision: Precision) -> int:
        """In memory, where no head is. FP8 covers the text layers; embedding and vision tower stay in
        bfloat16."""
        return 2 * (self.embedding + self.vision) + self.text * (1 if precision == "fp8" else 2)

    @property
    def cache(self) -> int:
        """KV cache of the tokens of a full step; with twice that, the next is prepared while one runs."""
        return 2 * STEP_TOKENS * self.layers * self.kv_heads * self.head * 2

    @property
    def activations(self) -> int:
        """Of a step: the widest text layer and the deepstack features, or the vision tower's patches."""
        text = STEP_TOKENS * (3 * self.hidden + 2 * self.ffn + self.deepstack * self.hidden) * 2
        vision = STEP_TOKENS * 4 * (3 * self.vision_hidden + self.vision_ffn) * 2
        vision += STEP_TOKENS * 4 * 2 * 768 * 4  # vLLM's own pixels, in float32, while it measures
        return max(text, vision)

    def need(self, precision: Precision) -> int:
        return self.weights(precision) + self.cache + self.activations + CONTEXT


def _family(size: Literal["2B", "8B"], role: Literal["Embedding", "Reranker"]) -> Model:
    small = size == "2B"
    return Model(
        name=f"Qwen/Qwen3-VL-{role}-{size}",
        role="embedder" if role == "Embedding" else "reranker",
        layers=28 if small else 36,
        hidden=2048 if small else 4096,
        ffn=6144 if small else 12_288,
        heads=16 if small else 32,
        tied=small,
        vision_layers=24 if small else 27,
        vision_hidden=1024 if small else 1152,
        vision_ffn=4096 if small else 4304,
    )


MODELS = tuple(_family(size, role) for size in ("2B", "8B") for role in ("Embedding", "Reranker"))


def fits(model: Model, precision: Precision, memory: int) -> bool:
    return model.need(precision) <= SHARE * memory


def advice(gpu: Gpu) -> list[str]:
    """The command for the largest pair on one GPU, or the largest single models; empty when nothing fits."""
    for embedder, reranker in ((MODELS[2], MODELS[3]), (MODELS[0], MODELS[1])):
        for precision in PRECISIONS:
            if embedder.need(precision) + reranker.need(precision) <= SHARE * gpu.memory:
                return [_command(precision, f"--embedder {embedder.name} --reranker {reranker.name}")]
    for model in (*MODELS[2:], *MODELS[:2]):
        for precision in PRECISIONS:
            if fits(model, precision, gpu.memory):
                return [_command(precision, f"--{each.role} {each.name}") for each in _same_size(model)]
    return []


def _same_size(model: Model) -> list[Model]:
    return [each for each in MODELS if each.layers == model.layers]


def _command(precision: Precision, models: str) -> str:
    return f"qvl serve {models}{' --quantization fp8' if precision == 'fp8' else ''}"


def show() -> int:
    """Print the table and what to run."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    found = gpus()
    table = Table(title="GiB of GPU memory, for the weights / in all", title_justify="left")
    table.add_column("model", no_wrap=True)
    for column in ("parameters", "bfloat16", "FP8"):
        table.add_column(column, justify="right")
    for i in range(len(found)):
        table.add_column(f"on GPU {i}")
    for model in MODELS:
        sizes = [f"{model.weights(kind) / GIB:.1f} / {model.need(kind) / GIB:.1f}" for kind in PRECISIONS]
        verdicts = [_verdict(model, gpu) for gpu in found]
        table.add_row(model.name, f"{model.parameters / 1e9:.2f} B", *sizes, *verdicts)
    console.print(table)
    console.print("In all: weights, KV cache and activations of a full step, CUDA's own.", style="dim")
    for line in recommendation(found):
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _verdict(model: Model, gpu: Gpu) -> str:
    if fits(model, "bf16", gpu.memory):
        return "bf16"
    return "FP8" if fits(model, "fp8", gpu.memory) else "no"


def recommendation(found: Sequence[Gpu]) -> list[str]:
    memory = f"{host_memory() / GIB:.0f} GiB of host memory"
    if not found:
        small = max(model.weights("bf16") for model in MODELS[:2]) * 2
        slow = "the 2B models run, slowly" if host_memory() > small else "only tiny models fit"
        return [f"No NVIDIA GPU; {memory}: {slow}. To try it out: qvl demo"]
    lines = []
    for i, gpu in enumerate(found):
        lines.append(f"GPU {i}: {gpu.name}, {gpu.memory / GIB:.0f} GiB; {memory}")
        commands = advice(gpu)
        lines += [f"  {command}" for command in commands] or ["  no model of the family fits this GPU"]
        if any("fp8" in command for command in commands) and not gpu.fp8:
            lines.append("  (this GPU stores FP8 weights but computes in bf16: smaller, not faster)")
    return lines
