"""The files of a tiny Qwen3-VL checkpoint beside its weights and its tokenizer, in the published format.

Everything of the real architecture is there (interleaved M-RoPE, grouped heads, query and key norms,
deepstack, position interpolation in the vision tower); only the dimensions are small.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.pair.vocabulary import CHAT_TEMPLATE, SPECIAL

HEAD_DIM = 32
MROPE_SECTION = [6, 5, 5]
PATCH, TEMPORAL, MERGE = 16, 2, 2
POSITIONS = 48 * 48
VISION_HEADS = 4

Json: TypeAlias = dict[str, Any]


def write_texts(part: Path, config: Json) -> None:
    write_json(part / "config.json", config)
    write_json(part / "tokenizer_config.json", tokenizer_config())
    write_json(part / "preprocessor_config.json", pixel_config("image", 65536, 16777216))
    write_json(part / "video_preprocessor_config.json", pixel_config("video", 4096, 25165824))
    (part / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def model_config(ids: dict[str, int], text: Json, vision: Json) -> Json:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": text,
        "vision_config": vision,
    }


def text_config(ids: dict[str, int], rows: int, tied: bool, hidden: int, layers: int) -> Json:
    """`rows` is the embedding's height, padded above the vocabulary as in the published ones."""
    return {
        "model_type": "qwen3_vl_text",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "dtype": "bfloat16",
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 262144,
        "num_attention_heads": hidden // HEAD_DIM,
        "num_hidden_layers": layers,
        "num_key_value_heads": hidden // HEAD_DIM // 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": MROPE_SECTION, "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": rows,
    }


def vision_config(hidden: int, vision_hidden: int, vision_depth: int) -> Json:
    return {
        "model_type": "qwen3_vl",
        "deepstack_visual_indexes": list(range(1, min(vision_depth, 4))),
        "depth": vision_depth,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": vision_hidden,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 2 * vision_hidden,
        "num_heads": VISION_HEADS,
        "num_position_embeddings": POSITIONS,
        "out_hidden_size": hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
    }


def tokenizer_config() -> Json:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "model_max_length": 262144,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "errors": "replace",
        "split_special_tokens": False,
        "chat_template": CHAT_TEMPLATE,
        "additional_special_tokens": list(SPECIAL[1:]),
    }


def pixel_config(kind: str, shortest: int, longest: int) -> Json:
    """The family's general limits, as published: obeying them gives other pixels than the reference."""
    kinds = {"image": "Qwen2VLImageProcessorFast", "video": "Qwen3VLVideoProcessor"}
    return {
        "size": {"longest_edge": longest, "shortest_edge": shortest},
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
        f"{kind}_processor_type": kinds[kind],
    }
