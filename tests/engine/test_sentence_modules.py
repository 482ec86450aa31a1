"""sentence-transformers' files beside a checkpoint: the published are served, what answers otherwise not."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qvl.engine import checkpoint, prompt, sentence_modules
from qvl.engine.config import EngineConfig
from qvl.engine.dialects import tasks
from qvl.engine.errors import CheckpointError
from qvl.engine.text_side import load_text_side
from tests.published import BASE, LOGIT_SCORE, NORMALIZE, POOLING, add_modules, publish
from tests.tiny import write_checkpoint

VOCABULARY = {"yes": 7, "no": 8, "1": 1, "0": 2}
LAST = {"embedding_dimension": 8, "pooling_mode": "lasttoken"}
MEAN = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}


# transformers leaves the file of a second template to be closed by itself.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*reranker.jinja")
@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_the_published_folders_are_served(
    role: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = publish(write_checkpoint(tmp_path / "mine"), role)
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "reranker.jinja").write_text("for sentence-transformers alone")
    (found,) = checkpoint.find(EngineConfig(models=(str(path),)))
    side = load_text_side(found)
    assert found.role == role
    vocabulary = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    assert (side.yes, side.no) == ((vocabulary["yes"], vocabulary["no"]) if role == "reranker" else (0, 0))
    assert "qvl.engine" not in {record.name for record in caplog.records}


@pytest.mark.parametrize(
    "following",
    [
        [("sentence_transformers.models.Pooling", {"pooling_mode_lasttoken": True}), (NORMALIZE, None)],
        [(POOLING, {"pooling_mode": ["lasttoken"]})],
        [(NORMALIZE, None)],
    ],
)
def test_older_ways_to_say_the_same_are_served(following: list[Any], tmp_path: Path) -> None:
    sentence_modules.check(add_modules(tmp_path, *following), {})
    sentence_modules.check(tmp_path / "without", {})


@pytest.mark.parametrize("settings", [None, {"hidden_size": 8}])
@pytest.mark.parametrize("kind", [POOLING, LOGIT_SCORE])
def test_settings_in_the_wrong_place_are_the_published_ones(
    kind: str, settings: dict[str, Any] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Qwen3-VL-Reranker-8B's `modules.json` named a folder that was not there."""
    folder = add_modules(tmp_path, (kind, settings))
    with caplog.at_level(logging.WARNING, "qvl.engine"):
        sentence_modules.check(folder, {})
        assert sentence_modules.tokens(folder, {}, VOCABULARY) == (7, 8)
    assert [record.message.endswith("is taken for Qwen3-VL's own") for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("following", "match"),
    [
        ([(POOLING, MEAN)], r"pooling \(1_Pooling\) is \['pooling_mode_mean_tokens'\]; served is lasttoken"),
        ([(POOLING, {"pooling_mode_lasttoken": False})], "is mean; served"),
        ([(POOLING, {"pooling_mode": ["lasttoken", "mean"]})], "'mean'"),
        ([(POOLING, LAST), (f"{BASE}.base.modules.dense.Dense", None)], r"a Dense \(2_Dense\) follows"),
        ([("custom.Head", {})], "a Head .* use sentence-transformers"),
    ],
)
def test_other_modules_are_refused_by_name(following: list[Any], match: str, tmp_path: Path) -> None:
    add_modules(write_checkpoint(tmp_path / "an-embedding"), *following)
    with pytest.raises(CheckpointError, match=match):
        checkpoint.find(EngineConfig(models=(str(tmp_path / "an-embedding"),)))


QUERY, REPRESENT = tasks.QUERY, prompt.EMBED_INSTRUCTION


@pytest.mark.parametrize(
    ("role", "said", "told"),
    [
        ("embedder", {"prompts": {"query": "Find the clause.", "document": ""}}, "prompts 'query' are not"),
        (
            "embedder",
            {"prompts": {"query": QUERY, "document": "The clause:", "law": "A"}},
            "'document', 'law'",
        ),
        (
            "embedder",
            {"prompts": {"law": "A"}, "default_prompt_name": "law"},
            r"'law' \(its default\) are not",
        ),
        (
            "embedder",
            {"prompts": {"query": QUERY}, "default_prompt_name": "query"},
            r"'query' \(its default\)",
        ),
        ("reranker", {"prompts": {"query": QUERY}}, "'query' are not .*; send such a text as `instruction`"),
        (
            "embedder",
            {"prompts": {"query": QUERY[:-1], "document": REPRESENT, "law": f" {REPRESENT} "}},
            None,
        ),
        ("embedder", {"prompts": {"law": REPRESENT}, "default_prompt_name": "law"}, None),
        ("reranker", {"prompts": {"query": prompt.RERANK_INSTRUCTION}, "default_prompt_name": "query"}, None),
        ("embedder", {"prompts": None, "default_prompt_name": None}, None),
        ("embedder", {"prompts": {"query": None}}, None),
        ("embedder", {"prompts": ["query"]}, "prompts are unknown .*Expected `object"),
        ("embedder", b"{", "prompts are unknown .*truncated"),
        ("embedder", b'{"prompts": {"a": "\xff"}}', "prompts are unknown"),
    ],
)
def test_prompts_that_are_not_applied_are_told_of_once(
    role: Any, said: Any, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_checkpoint(tmp_path / "mine")
    file = path / "config_sentence_transformers.json"
    file.write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())
    with caplog.at_level(logging.WARNING, "qvl.engine"):
        checkpoint.find(EngineConfig(**{role: str(path)}))
    assert [str(file) in record.message for record in caplog.records] == ([True] if told else [])
    assert not told or re.search(told, caplog.text)


def test_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mine")
    config = json.loads((path / "config.json").read_text())
    config["architectures"] = ["Qwen3VLForSequenceClassification"]
    (path / "config.json").write_text(json.dumps(config))
    checkpoint.find(EngineConfig(models=(str(path),)))  # cut out of lm_head, as vLLM does
    save_file({"score.weight": torch.zeros(1, 8)}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"score\.weight; served are rerankers that say yes or no"):
        checkpoint.find(EngineConfig(models=(str(path),)))


@pytest.mark.parametrize(
    ("score", "config", "found"),
    [
        ({"true_token_id": 1, "false_token_id": 2}, {}, (1, 2)),
        (None, {"classifier_from_token": ["no", "yes"]}, (7, 8)),
        (None, {"classifier_from_token": ["0", "1"]}, (1, 2)),
        ({"true_token_id": 7, "false_token_id": 8}, {"classifier_from_token": ["0", "1"]}, (7, 8)),
        ({"true_token_id": 1}, {}, "one token against another .*false_token_id"),
        ({"true_token_id": 1, "false_token_id": None}, {}, "one token against another .*false_token_id"),
        ({"true_token_id": 1, "false_token_id": 99}, {}, "its vocabulary has no '#99'"),
        (None, {"classifier_from_token": ["maybe", "1"]}, "its vocabulary has no 'maybe'"),
        (None, {"classifier_from_token": ["yes"]}, "one token against another .*length 2"),
    ],
)
def test_the_two_tokens_are_those_that_it_was_trained_on(
    score: dict[str, Any] | None, config: dict[str, Any], found: Any, tmp_path: Path
) -> None:
    if score:
        add_modules(tmp_path, (LOGIT_SCORE, score))
    if isinstance(found, tuple):
        assert sentence_modules.tokens(tmp_path, config, VOCABULARY) == found
        return
    with pytest.raises(CheckpointError, match=found):
        sentence_modules.tokens(tmp_path, config, VOCABULARY)
