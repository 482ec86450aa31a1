"""A complete Qwen3-VL checkpoint of two megabytes with random weights, in the published file format.

Everything of the real architecture is there (interleaved M-RoPE, grouped heads, query and key norms,
deepstack, position interpolation in the vision tower, Qwen's byte-level tokenizer with its special
tokens); only the dimensions are small. Hugging Face's own initialisation (std 0.02) would make a nearly
linear net whose vectors hardly see positions or pixels, so the weights here are wide: each matrix keeps
the variance of its input, and attention is sharp. A wrong position, patch order or pixel limit moves
the vectors by far more than rounding does.

The same arguments give the same bytes on every machine: numpy's generator and the `tokenizers` trainer
are deterministic, and torch only writes the file.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.pair.tiny import model_config, text_config, vision_config, write_texts
from benchmarks.pair.vocabulary import train_tokenizer
from tests.tiny_weights import write_weights

FILES = (
    "chat_template.jinja",
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)


def write_pair(folder: Path, *, tied: bool = True, append_end: bool = False) -> tuple[Path, Path]:
    """An embedder and a reranker below `folder`; their folder names tell their roles, as the published do.

    The reranker's seed is one whose scores for different documents spread widely around 0.5.
    """
    embedder = write_checkpoint(folder / "tiny-qwen3-vl-embedding", seed=0, tied=tied, append_end=append_end)
    reranker = write_checkpoint(folder / "tiny-qwen3-vl-reranker", seed=6, tied=tied, append_end=append_end)
    return embedder, reranker


def write_thin_pair(folder: Path) -> tuple[Path, Path]:
    """Likewise, with one layer of 64 numbers and two in the vision tower: they cost next to nothing."""
    thin = {"hidden": 64, "layers": 1, "vision_depth": 2}
    embedder = write_checkpoint(folder / "thin-qwen3-vl-embedding", seed=0, **thin)
    return embedder, write_checkpoint(folder / "thin-qwen3-vl-reranker", seed=6, **thin)


def write_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    append_end: bool = False,
    hidden: int = 128,
    layers: int = 4,
    vision_hidden: int = 64,
    vision_depth: int = 4,
) -> Path:
    """Write a checkpoint to `folder` and return it; a folder that already holds one is left as it is.

    `tied` shares the embedding with `lm_head`; otherwise a head of its own is saved, as in the 8B models.
    With `append_end` the tokenizer ends each text with <|endoftext|>, as some published ones do. `hidden`
    is a multiple of 64 (an even number of 32-wide heads). Files appear together: they are written beside
    `folder` and moved there at the end, so several processes may ask for the same folder at once.
    """
    if complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(append_end=append_end)
    ids = {str(token): index for index, token in tokenizer.get_added_tokens_decoder().items()}
    rows = -(-tokenizer.get_vocab_size() // 64) * 64
    text = text_config(ids, rows, tied, hidden, layers)
    config = model_config(ids, text, vision_config(hidden, vision_hidden, vision_depth))
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        part.chmod(0o755)
        tokenizer.save(str(part / "tokenizer.json"))
        write_texts(part, config)
        write_weights(part / "model.safetensors", config, seed)
        part.rename(folder)
    except OSError:
        if not complete(folder):
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)
