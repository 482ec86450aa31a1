"""The oracle's own rules, checked by hand, and that the tiny models would show a mistake in each of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qvl.engine.check.reference import Reference
from qvl.engine.check.reference.conversation import JUDGE, RERANK
from qvl.engine.check.reference.oracle import EMBED_LENGTH, KEPT, RERANK_LENGTH
from tests.conftest import Pair
from tests.samples import moving_shape, scenes, video

PICTURE = scenes(1)[0].image
CLIP = moving_shape(6)


def prompt(reference: Reference, item: dict[str, Any]) -> str:
    [ids], _ = reference.embed([item])
    return str(reference.processor.tokenizer.decode(ids))


def turns(system: str, user: str) -> str:
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("item", "system", "user"),
    [
        ({}, "Represent the user's input.", "NULL"),
        ({"text": []}, "Represent the user's input.", "NULL"),
        ({"text": ""}, "Represent the user's input.", ""),
        ({"text": ["a", " b"], "instruction": " Find it \n"}, "Find it.", "a b"),
        ({"text": "a", "instruction": "Why?"}, "Why?", "a"),
        ({"text": "a", "instruction": "找到它。"}, "找到它。", "a"),
        ({"text": "a", "instruction": "cost in $"}, "cost in $.", "a"),
        ({"text": "a", "instruction": "  "}, "Represent the user's input.", "a"),
    ],
)
def test_embedding_prompt(embedder: Reference, item: dict[str, Any], system: str, user: str) -> None:
    assert prompt(embedder, item) == turns(system, user)


def test_media_come_before_text_and_videos_before_images(embedder: Reference) -> None:
    text = prompt(embedder, {"text": "t", "image": PICTURE, "video": CLIP[:3]})
    frame = "<|vision_start|>" + "<|video_pad|>" * 143 + "<|vision_end|>"
    image = "<|vision_start|>" + "<|image_pad|>" * 80 + "<|vision_end|>"
    # Three frames: the last is repeated under a new index, at 2 frames per second.
    timed = f"<0.2 seconds>{frame}<1.2 seconds>{frame}"
    # transformers 5 widens the pad alone and so leaves the template's own marks around a video.
    wrapped = f"<|vision_start|>{timed}<|vision_end|>"
    assert text == turns("Represent the user's input.", f"{wrapped}{image}t")


def test_rerank_prompt(reranker: Reference) -> None:
    [ids], logits, scores = reranker.rerank({"text": "q"}, [{}])
    user = f"<Instruct>: {RERANK}<Query>:q\n<Document>:NULL"
    assert reranker.processor.tokenizer.decode(ids) == turns(JUDGE, user)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-6)


def test_weights_that_are_missing_are_not_made_up(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.embedder, tmp_path / "embedder"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.visual.merger.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has no model\.visual\.merger\.norm\.weight"):
        Reference(folder)


def test_embedder_cuts_on_the_right(embedder: Reference) -> None:
    [ids], _ = embedder.embed([{"text": "word " * 9000}])
    assert len(ids) == EMBED_LENGTH
    assert ids[-5:] != embedder.embed([{}])[0][0][-5:]


def test_embedder_refuses_to_cut_a_video(embedder: Reference) -> None:
    clip = [frame.resize((64, 48)) for frame in moving_shape(64)]
    with pytest.raises(ValueError, match="Mismatch in `video` token count"):
        embedder.embed([{"video": [clip, clip]}])


def test_reranker_keeps_its_end_and_special_tokens(reranker: Reference) -> None:
    long = {"text": "word " * 12000, "image": PICTURE}
    [ids], _, _ = reranker.rerank({"text": "q"}, [long])
    special = set(reranker.processor.tokenizer.all_special_ids)
    pad = reranker.processor.image_token_id
    assert len(ids) == RERANK_LENGTH + KEPT
    assert ids.count(pad) == 80
    assert ids[-KEPT:] == reranker.rerank({"text": "q"}, [{}])[0][0][-KEPT:]
    [query_first], _, _ = reranker.rerank(long, [{"image": PICTURE, "text": "lost"}])
    assert query_first.count(pad) == 160
    assert set(query_first[-KEPT - 82 : -KEPT]) <= special


def test_video_files_are_sampled_in_time(embedder: Reference, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video(moving_shape(40), fps=8))
    default = prompt(embedder, {"video": path})
    assert default.count("seconds>") == 2
    assert default.count("<0.8 seconds>") == 1
    assert prompt(embedder, {"video": path, "fps": 4, "max_frames": 11}).count("seconds>") == 5
    assert prompt(embedder, {"video": CLIP * 4, "max_frames": 6}).count("seconds>") == 12


@pytest.mark.parametrize("item", [{"image": PICTURE}, {"video": CLIP}], ids=["image", "video"])
def test_vectors_show_positions_and_patch_order(embedder: Reference, item: dict[str, Any]) -> None:
    inputs = embedder.embed_inputs(item)
    right = embedder._last_hidden(inputs)
    length = inputs["input_ids"].shape[1]
    flat = {**inputs, "position_ids": torch.arange(length).expand(3, 1, length)}
    pixels = next(name for name in inputs if name.startswith("pixel_values"))
    shuffled = {**inputs, pixels: inputs[pixels].flip(0)}
    for wrong in (flat, shuffled):
        assert torch.cosine_similarity(right, embedder._last_hidden(wrong), dim=0) < 0.99


def test_vectors_show_deepstack(embedder: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = embedder.embed_inputs({"image": PICTURE})
    right = embedder._last_hidden(inputs)
    language = embedder.model.model.language_model
    monkeypatch.setattr(language, "_deepstack_process", lambda hidden, *_: hidden)
    assert torch.cosine_similarity(right, embedder._last_hidden(inputs), dim=0) < 0.99


def test_scores_are_spread(reranker: Reference) -> None:
    documents = [{"text": scene.caption} for scene in scenes(6)]
    documents += [{"image": scene.image} for scene in scenes(6)]
    _, _, scores = reranker.rerank({"text": "a red circle"}, documents)
    assert scores.std() > 0.05
    assert ((scores > 0.001) & (scores < 0.999)).all()
