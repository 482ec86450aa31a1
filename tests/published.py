"""The files that the published checkpoints have for sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

BASE = "sentence_transformers"
FIRST = f"{BASE}.base.modules.transformer.Transformer"
LOGIT_SCORE = f"{BASE}.cross_encoder.modules.logit_score.LogitScore"
POOLING = f"{BASE}.sentence_transformer.modules.pooling.Pooling"
NORMALIZE = f"{BASE}.sentence_transformer.modules.normalize.Normalize"


def add_modules(folder: Path, *following: tuple[str, dict[str, Any] | None]) -> Path:
    """`modules.json`, and of each module that follows the model its class and its settings."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": FIRST}]
    for place, (kind, settings) in enumerate(following, 1):
        path = f"{place}_{kind.rpartition('.')[2]}"
        listed.append({"idx": place, "name": str(place), "path": path, "type": kind})
        if settings is not None:
            (folder / path).mkdir(exist_ok=True)
            (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def publish(folder: Path, role: Literal["embedder", "reranker"]) -> Path:
    """As Qwen's own are since sentence-transformers 5.4."""
    kind = {"embedder": "SentenceTransformer", "reranker": "CrossEncoder"}[role]
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"transformer_task": "any-to-any"}))
    if role == "embedder":
        width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
        pooling = {"embedding_dimension": width, "pooling_mode": "lasttoken", "include_prompt": True}
        return add_modules(folder, (POOLING, pooling), (NORMALIZE, None))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    score = {"true_token_id": vocabulary["yes"], "false_token_id": vocabulary["no"]}
    return add_modules(folder, (LOGIT_SCORE, score | {"module_input_name": "causal_logits"}))
