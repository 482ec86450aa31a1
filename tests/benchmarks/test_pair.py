"""The demo's world is seeded and unambiguous, and training sees exactly what serving feeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.pair import evaluate, sight, train
from benchmarks.pair.batches import last_hidden
from qvl.engine.check.reference import Reference
from qvl.engine.demo import bundled, codes, tasks
from qvl.engine.demo.tasks import Item
from qvl.engine.demo.world import edited, random_clip, random_page, random_scene
from tests.conftest import Pair

TASKS = ("text to image", "image to text", "page", "mixed", "video")
RNG = np.random.default_rng(5)
PICTURE, CLIP = random_scene(RNG).draw(RNG), tuple(random_clip(RNG).draw(RNG))
ITEMS = {
    "text": Item("a red ring"),
    "instruction": Item("a red ring", instruction=tasks.MATCH_COLOURS),
    "page": Item(image=random_page(RNG).draw(RNG)),
    "image and text": Item("the same over snow", PICTURE, instruction=tasks.CHANGE),
    "frames": Item(frames=CLIP),
}


def as_reference(item: Item) -> dict[str, Any]:
    media = {"image": item.image, "video": list(item.frames) or None, "text": item.text or None}
    return {name: value for name, value in media.items() if value} | {"instruction": item.instruction}


@pytest.mark.parametrize("task", [*TASKS, "colours", "shapes", "small video"])
def test_the_same_seed_draws_the_same(task: str) -> None:
    first, again = (tasks.sample(task, np.random.default_rng(3), 4) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert one.query.text == two.query.text
        for left, right in ((one.query, two.query), (one.document, two.document)):
            assert (left.image is None) == (right.image is None)
            assert left.image is None or left.image.tobytes() == right.image.tobytes()  # type: ignore[union-attr]
            assert [f.tobytes() for f in left.frames] == [f.tobytes() for f in right.frames]


@pytest.mark.parametrize("task", TASKS)
def test_no_two_candidates_could_be_confused(task: str) -> None:
    documents = np.stack([each.document_code for each in evaluate.examples(task, 300)])
    assert len(np.unique(documents, axis=0)) == 300


def test_an_edit_changes_what_it_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = random_scene(rng)
        changed, told = edited(scene, rng)
        assert changed != scene
        assert told.startswith("the same ")


def test_an_instruction_asks_for_its_part_alone() -> None:
    [example] = tasks.sample("colours", np.random.default_rng(1), 1)
    named = {codes.ATTRIBUTES[i] for i in np.flatnonzero(example.query_code)}
    assert named
    assert named <= {f"any {colour}" for colour in codes.COLOUR_NAMES}
    assert example.query_code @ example.document_code > 0


def test_codes_are_directions_at_right_angles() -> None:
    basis = codes.frame(128)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(codes.ATTRIBUTES)), atol=1e-5)


@pytest.mark.parametrize("kind", ITEMS)
def test_training_feeds_what_the_reference_feeds(pair: Pair, kind: str) -> None:
    reference = Reference(pair.embedder)
    wanted = reference.embed_inputs(as_reference(ITEMS[kind]))
    batch = train.collator(pair.embedder, "embedder").items([ITEMS[kind]])
    assert batch["input_ids"].tolist() == wanted["input_ids"].tolist()
    for name in ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw"):
        assert (name in batch) == (name in wanted)
        if name in wanted:
            torch.testing.assert_close(batch[name].float(), wanted[name].float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("names", [("text", "image and text", "page"), ("page", "page"), ("frames", "text")])
def test_neither_padding_nor_a_shared_start_changes_a_vector(pair: Pair, names: tuple[str, ...]) -> None:
    model, collate = Reference(pair.embedder).model.model, train.collator(pair.embedder, "embedder")
    items = [ITEMS[name] for name in names]
    with torch.inference_mode():
        together = last_hidden(model, collate.items(items))
        alone = [model(**collate.items([item]), use_cache=False).last_hidden_state[:, -1] for item in items]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_a_shared_start_has_its_gradient(pair: Pair) -> None:
    model, collate = Reference(pair.embedder).model.model, train.collator(pair.embedder, "embedder")
    items = [ITEMS["page"], ITEMS["page"], Item(image=PICTURE)]
    weight = model.language_model.layers[0].self_attn.k_proj.weight.requires_grad_()
    grads = []
    for parts in ([items], [[item] for item in items]):
        weight.grad = None
        for part in parts:
            last_hidden(model, collate.items(part)).sum().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        grads.append(weight.grad.clone())
    torch.testing.assert_close(*grads, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", sight.SHARES)
def test_each_part_of_a_picture_is_asked_for_what_is_in_it(kind: str) -> None:
    items, parts = sight.sample(kind, np.random.default_rng(2), 3)
    assert len(items) == len(parts) == 3
    asked = parts.sum(-1) > 0
    assert asked.any(1).all()
    assert asked.all() == (kind != "clip")


def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MIX", {"text to image": 4})
    monkeypatch.setattr(train, "SAVED_EVERY", 2)
    monkeypatch.setattr(train, "SIGHT_STEPS", 2)
    for name, stops in (("whole", (4,)), ("halves", (2, 4))):
        for stop in stops:
            train.train_embedder(tmp_path / name, 4, 1, until=stop)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "halves")]
    assert weights[0] == weights[1]


def test_the_pair_is_small() -> None:
    files = [file for folder in bundled.bundled_pair() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 12e6
