"""The checkpoints that everything here runs on: reproducible, whole, and like the published ones."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from transformers import Qwen3VLForConditionalGeneration

from benchmarks.pair.vocabulary import SPECIAL, WHOLE
from qvl.engine.check.reference import Reference
from qvl.engine.demo.drawing import png
from tests.conftest import Pair
from tests.samples import moving_shape, page, scenes, video
from tests.tiny import FILES, write_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    first, again = write_checkpoint(tmp_path / "a"), write_checkpoint(tmp_path / "b")
    other = write_checkpoint(tmp_path / "c", seed=1)
    assert contents(first) == contents(again)
    assert {n for n, data in contents(other).items() if data != contents(first)[n]} == {"model.safetensors"}


def test_many_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(write_checkpoint, [tmp_path / "pair"] * 4)} == {tmp_path / "pair"}
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]
    assert sorted(contents(tmp_path / "pair")) == sorted(FILES)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    with pytest.raises(OSError, match="not empty"):
        write_checkpoint(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes"]


@pytest.mark.parametrize("options", [{}, {"tied": False}, {"hidden": 192, "layers": 5, "vision_depth": 6}])
def test_loads_with_no_weight_missing_or_left_over(tmp_path: Path, options: dict[str, int]) -> None:
    folder = write_checkpoint(tmp_path / "pair", **options)
    _, report = Qwen3VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())


def test_vocabulary(pair: Pair, embedder: Reference) -> None:
    tokenizer = embedder.processor.tokenizer
    assert all(len(tokenizer.tokenize(word)) == 1 for word in (*WHOLE, *SPECIAL))
    assert set(tokenizer.all_special_tokens) == set(SPECIAL)
    rows = json.loads((pair.embedder / "config.json").read_text())["text_config"]["vocab_size"]
    assert len(tokenizer) < rows


def test_end_token(tmp_path: Path) -> None:
    tokenizer = Reference(write_checkpoint(tmp_path / "pair", append_end=True)).processor.tokenizer
    assert tokenizer.decode(tokenizer("a")["input_ids"]) == "a<|endoftext|>"


def test_samples_are_reproducible_and_different() -> None:
    captions = [scene.caption for scene in scenes(96)]
    assert len(set(captions)) == 96
    assert captions == [scene.caption for scene in scenes(96)]
    assert png(scenes(1)[0].image) != png(scenes(1, seed=1)[0].image)
    assert np.asarray(page(["Invoice", "Total 1"])).std() > 1
    for container in ("mp4", "webm"):
        first, again = (video(moving_shape(9), container=container) for _ in range(2))
        assert first == again
