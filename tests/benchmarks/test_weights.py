"""Random weights of real dimensions load as a checkpoint and give answers that differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.asks import Embed, Item, Rerank
from benchmarks.contestants.huggingface import HuggingFace
from benchmarks.truth import allowed
from benchmarks.weights import write
from benchmarks.words import Words
from qvl.engine.weights import check
from tests.conftest import Pair

INDEX = "model.safetensors.index.json"
ITEMS = (Item(text="a cat on the road"), Item(text="stone"), Item(text="a longer text of several words"))


@pytest.fixture(scope="module")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pair's config; its own weights stay behind."""
    out = tmp_path_factory.mktemp("weights") / "tiny-embedding"
    write(pair.embedder, out, seed=1)
    return out


def test_the_checkpoint_answers(folder: Path) -> None:
    model = HuggingFace(folder, dtype="float32", device="cpu")
    vectors, tokens = model.answer(Embed(ITEMS), batch=1)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert float((vectors @ vectors.T).min()) < 0.99
    assert len(set(tokens)) > 1
    scores, _ = model.answer(Rerank(ITEMS[0], ITEMS), batch=3)
    assert scores.shape == (3,)
    assert ((scores > 0) & (scores < 1)).all()


def test_a_published_folder_s_index_of_weights_stays_behind(pair: Pair, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "an-embedding"
    shutil.copytree(pair.embedder, source)
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    write(source, out, seed=1)
    check(out)
    assert {each.name for each in source.iterdir()} - {each.name for each in out.iterdir()} == {INDEX}


def test_a_padded_batch_is_the_same_as_one_at_a_time(folder: Path) -> None:
    model = HuggingFace(folder, dtype="float32", device="cpu")
    single, _ = model.answer(Embed(ITEMS), batch=1)
    padded, _ = model.answer(Embed(ITEMS), batch=3)
    assert np.abs(single - padded).max() < 1e-6


def test_what_bfloat16_does_to_it_is_allowed(folder: Path) -> None:
    exact, _ = HuggingFace(folder, dtype="float32", device="cpu").answer(Embed(ITEMS), batch=3)
    rounded, _ = HuggingFace(folder, dtype="bfloat16", device="cpu").answer(Embed(ITEMS), batch=3)
    assert np.abs(exact - rounded).max() < allowed("bfloat16", exact.shape[1])


def test_two_long_texts_differ_by_more_than_bfloat16_does(pair: Pair, tmp_path: Path) -> None:
    """At the depth of the 2B, or a stranger's answer would pass for right."""
    source, out = tmp_path / "source", tmp_path / "deep-embedding"
    shutil.copytree(pair.embedder, source)
    config = json.loads((source / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 28
    (source / "config.json").write_text(json.dumps(config))
    write(source, out, seed=1)
    words = Words(out / "tokenizer.json")
    texts = tuple(Item(text=words.tokens(1024, number)) for number in range(2))
    one, other = HuggingFace(out, dtype="float32", device="cpu").answer(Embed(texts), batch=1)[0]
    assert np.abs(one - other).max() > 2 * allowed("bfloat16", len(one))
