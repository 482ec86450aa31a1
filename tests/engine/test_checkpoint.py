"""What a checkpoint says of itself, and the one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvl.engine import checkpoint
from qvl.engine.config import EngineConfig
from qvl.engine.demo.bundled import FOLDER
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.text_side import load_text_side
from tests.conftest import Pair
from tests.tiny import write_checkpoint


def folder(tmp_path: Path, name: str, **config: Any) -> Path:
    path = tmp_path / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", "text_config": {}, **config}))
    return path


@pytest.mark.parametrize(
    ("name", "config", "role"),
    [
        ("Qwen3-VL-Embedding-2B", {}, "embedder"),
        ("Qwen3-VL-Reranker-8B", {}, "reranker"),
        ("mine", {"architectures": ["Qwen3VLForSequenceClassification"]}, "reranker"),
        ("mine", {"classifier_from_token": ["no", "yes"]}, "reranker"),
        ("mine", {"architectures": ["Qwen3VLForEmbedding"]}, "embedder"),
        ("mine", {"_name_or_path": "org/Qwen3-VL-Reranker-2B"}, "reranker"),
    ],
)
def test_role_is_told_by_config_then_name(
    tmp_path: Path, name: str, config: dict[str, Any], role: str
) -> None:
    assert checkpoint.tell_role(folder(tmp_path / "..", f"{tmp_path.name}-{name}", **config)) == role


def test_sentence_transformers_files_tell_the_role(tmp_path: Path) -> None:
    path = folder(tmp_path, "mine")
    (path / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert checkpoint.tell_role(path) == "reranker"


def test_what_the_user_said_wins_over_the_name(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    (found,) = checkpoint.find(EngineConfig(reranker=str(pair.embedder)))
    assert (found.role, found.name) == ("reranker", pair.embedder.name)
    assert "is served as the reranker, and its name is that of the embedder" in caplog.text
    caplog.clear()
    checkpoint.find(EngineConfig(reranker=str(pair.reranker)))
    assert not caplog.text


def test_a_checkpoint_in_the_others_place_is_refused() -> None:
    """It would answer with numbers that mean nothing."""
    with pytest.raises(ConfigError, match=r"reranker is no embedder: .*; --reranker serves it"):
        checkpoint.find(EngineConfig(embedder=str(FOLDER / "reranker")))
    with pytest.raises(ConfigError, match=r"embedder is no reranker: .*; --embedder serves it"):
        checkpoint.find(EngineConfig(reranker=str(FOLDER / "embedder")))


@pytest.mark.parametrize(
    "config", [EngineConfig(models=("bundled",)), EngineConfig(embedder="bundled", reranker="bundled")]
)
def test_the_bundled_pair_is_a_name(config: EngineConfig, caplog: pytest.LogCaptureFixture) -> None:
    found = checkpoint.find(config)
    assert [(each.name, each.path) for each in found] == [
        (role, FOLDER / role) for role in ("embedder", "reranker")
    ]
    assert config.two
    assert caplog.text.count("the bundled tiny pair") == 1
    (alone,) = checkpoint.find(EngineConfig(reranker="bundled"))
    assert (alone.role, alone.path) == ("reranker", FOLDER / "reranker")


def test_a_pair_of_paths_needs_no_roles(pair: Pair) -> None:
    found = checkpoint.find(EngineConfig(models=(str(pair.reranker), str(pair.embedder))))
    assert [each.role for each in found] == ["embedder", "reranker"]


def test_a_model_of_the_hub_is_asked_for_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time is a round trip, or a failure where the hub is away. None can be had where tests run."""
    asked: list[str] = []

    def snapshot_download(name: str, **_: object) -> str:
        asked.append(name)
        return str(pair.reranker if "rank" in name else pair.embedder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = checkpoint.find(EngineConfig(models=("a/ranks", "a/finds"), embedder_name=("mine",)))
    assert [(each.role, each.name) for each in found] == [("embedder", "mine"), ("reranker", "ranks")]
    assert [each.said for each in found] == ["a/finds", "a/ranks"]
    assert asked == ["a/ranks", "a/finds"]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[2J", "x" * 300])
def test_a_name_that_nobody_could_say_is_refused(name: str, pair: Any) -> None:
    for names in ({"embedder_name": ("fine", name)}, {"reranker_name": (name,)}):
        with pytest.raises(ConfigError, match=r"-name must have 1 to 256 printable characters, got '"):
            checkpoint.find(EngineConfig(models=(str(pair.embedder),), **names))


@pytest.mark.parametrize("names", [("b",), ()], ids=["both told", "one is its folder's"])
def test_one_name_is_of_one_model(pair: Any, names: tuple[str, ...]) -> None:
    taken = names[0] if names else pair.reranker.name
    models = (str(pair.embedder), str(pair.reranker))
    config = EngineConfig(models=models, embedder_name=("a", taken), reranker_name=names)
    with pytest.raises(ConfigError, match=f"both models are called '{taken}'"):
        checkpoint.find(config)


def test_a_hub_that_is_away_says_what_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **_: object) -> str:
        raise OSError("no route\nto it")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError, match=r"did not give it \(no route\): .*HF_TOKEN.*HF_HUB_OFFLINE=1"):
        checkpoint.find(EngineConfig(models=("a/finds",)))


def test_two_of_one_role_are_refused(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="second embedder"):
        checkpoint.find(EngineConfig(models=(str(pair.embedder),), embedder=str(pair.embedder)))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ('{"model_type": "bert"}', "'bert' checkpoint; qvl serves 'qwen3_vl'"),
        ("{}", "'unknown' checkpoint"),
        ("not json", "not valid JSON"),
        ('{"model_type": "qwen3_vl"}', "no text_config"),
        (
            '{"model_type": "qwen3_vl", "text_config": {}, "vision_config": {"patch_size": 14}}',
            "patch_size is 14; only 16",
        ),
    ],
)
def test_other_families_are_refused_in_one_line(tmp_path: Path, config: str, match: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.find(EngineConfig(embedder=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_folder_without_config_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoint.find(EngineConfig(embedder=str(tmp_path)))
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.find(EngineConfig(embedder=str(tmp_path / "absent")))


def test_a_nameless_checkpoint_asks_for_its_role(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--embedder or --reranker"):
        checkpoint.tell_role(folder(tmp_path, "weights"))


def test_another_chat_template_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny-embedding")
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content[0].text }}{% endfor %}")
    (found,) = checkpoint.find(EngineConfig(embedder=str(path)))
    with pytest.raises(CheckpointError, match="chat template"):
        load_text_side(found)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (None, "does not have a chat template"),
        ("{% for m in", "unexpected 'end of template'"),
        ("{{ raise_exception('no system message') }}", "no system message"),
        ("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", "can only concatenate str"),
        ("{{ conversation.first }}", "is undefined"),
    ],
)
def test_a_template_that_fails_is_refused_in_one_line(
    template: str | None, match: str, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "tiny-embedding")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is None:
        (path / "chat_template.jinja").unlink()
    else:
        (path / "chat_template.jinja").write_text(template)
    (found,) = checkpoint.find(EngineConfig(embedder=str(path)))
    with pytest.raises(CheckpointError, match=f"{match}.*copy chat_template.jinja from the base model"):
        load_text_side(found)


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("missing", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_folder_without_its_tokenizer_is_refused(missing: list[str], ids: bool, tmp_path: Path) -> None:
    """transformers makes an empty one, by which every text is the same."""
    path = write_checkpoint(tmp_path / "tiny-embedding")
    for name in missing:
        (path / name).unlink()
    config = json.loads((path / "config.json").read_text())
    if not ids:
        config = {name: each for name, each in config.items() if not name.endswith("_token_id")}
    (path / "config.json").write_text(json.dumps(config))
    (found,) = checkpoint.find(EngineConfig(embedder=str(path)))
    with pytest.raises(CheckpointError, match=r"copy tokenizer\.json and tokenizer_config\.json"):
        load_text_side(found)


def test_a_tiny_checkpoint_gives_its_sizes(pair: Pair) -> None:
    embedder, reranker = checkpoint.find(
        EngineConfig(embedder=str(pair.embedder), reranker=str(pair.reranker))
    )
    assert (embedder.max_length, reranker.max_length) == (8192, 10245)
    assert embedder.dimensions == 128
    side = load_text_side(reranker)
    assert side.yes != side.no
    assert {side.tokenizer._special.image, side.tokenizer._special.video} <= side.tokenizer._special.all


@given(share=st.floats(max_value=0) | st.floats(min_value=1, exclude_min=True))
def test_memory_shares_are_fractions(share: float) -> None:
    with pytest.raises(ConfigError, match="--embedder-memory"):
        EngineConfig(embedder="x", embedder_memory=share)


def test_shares_stay_within_the_card() -> None:
    with pytest.raises(ConfigError, match="sum"):
        EngineConfig(embedder="x", reranker="y", embedder_memory=0.6, reranker_memory=0.5)
    with pytest.raises(ConfigError, match="no model"):
        EngineConfig()


def test_pixels_scaled_otherwise_are_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny-embedding")
    settings = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.48, 0.46, 0.41]}))
    (found,) = checkpoint.find(EngineConfig(embedder=str(path)))
    with pytest.raises(CheckpointError, match="mean"):
        load_text_side(found)
