"""What goes into vLLM: settings that the installed version knows, and inputs past its renderer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qvl.engine import checkpoint, compat
from qvl.engine.arena import Place
from qvl.engine.config import EngineConfig
from qvl.engine.media import Visual
from qvl.engine.tokens import Prompt, Span
from tests.conftest import Pair
from tests.parity.conftest import vllm_warnings

IMAGE, VIDEO, START, END = 90, 91, 92, 93


def visual(kind: str, frames: int, height: int, width: int) -> Visual:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    times = tuple(float(i) for i in range(frames // 2)) if kind == "video" else ()
    return Visual(kind, pixels, times, f"hash-of-{kind}")  # type: ignore[arg-type]


def test_text_is_token_input() -> None:
    made = compat.engine_input(Prompt([1, 2, 3]), (), ())
    assert (made["type"], made["prompt_token_ids"]) == ("token", [1, 2, 3])


def test_the_queue_is_ordered_by_a_clock_that_never_jumps() -> None:
    from vllm.inputs import TokensInput

    assert "arrival_time" in TokensInput.__annotations__
    first, second = (compat.engine_input(Prompt([1]), (), ())["arrival_time"] for _ in range(2))
    assert time.monotonic() - 1 < first <= second <= time.monotonic()


def test_an_engine_can_be_asked_between_two_steps() -> None:
    vllm = importlib.util.find_spec("vllm")  # to import what is below it loads half of torch
    assert vllm and vllm.origin
    source = Path(vllm.origin).with_name("v1") / "engine" / "async_llm.py"
    assert "async def is_sleeping(self)" in source.read_text()


def test_an_image_travels_as_its_place() -> None:
    image = visual("image", 1, 64, 96)
    prompt = Prompt([1, START, *[IMAGE] * 6, END, 2], (Span(2, 6, IMAGE),))
    made = compat.engine_input(prompt, (image,), (Place(128, 18432, 7),))
    (item,) = made["mm_kwargs"]["image"]
    assert item["pixel_values"].data.tolist() == [128, 18432, 7]
    assert item["image_grid_thw"].data.tolist() == [1, 4, 6]
    assert made["mm_hashes"] == {"image": ["hash-of-image"]}
    (place,) = made["mm_placeholders"]["image"]
    assert (place.offset, place.length, place.is_embed) == (2, 6, None)


def test_a_video_is_one_range_with_its_pads_marked() -> None:
    video = visual("video", 4, 32, 64)
    frame = [START, IMAGE + 1, IMAGE + 1, END]
    prompt = Prompt([7, *frame, 8, *frame, 9], (Span(1, 9, VIDEO),))
    made = compat.engine_input(prompt, (video,), (Place(0, 24576, 1),))
    (item,) = made["mm_kwargs"]["video"]
    assert item["video_grid_thw"].data.tolist() == [2, 2, 4]
    (place,) = made["mm_placeholders"]["video"]
    assert place.is_embed.tolist() == [False, True, True, False, False, False, True, True, False]


def test_media_of_one_item_keep_their_order() -> None:
    small, big = visual("image", 1, 32, 32), visual("image", 1, 32, 64)
    prompt = Prompt([IMAGE, 5, IMAGE, IMAGE], (Span(0, 1, IMAGE), Span(2, 2, IMAGE)))
    made = compat.engine_input(prompt, (small, big), (Place(0, 1, 1), Place(9, 1, 2)))
    assert [item["image_grid_thw"].data.tolist() for item in made["mm_kwargs"]["image"]] == [
        [1, 2, 2],
        [1, 2, 4],
    ]
    assert [place.offset for place in made["mm_placeholders"]["image"]] == [0, 2]


@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_every_right_setting_follows_from_the_path(pair: Pair, role: str) -> None:
    config = EngineConfig(models=(str(getattr(pair, role)),))
    (found,) = checkpoint.find(config)
    side = checkpoint.load_text_side(found)
    args = compat.engine_args(config, found, side, pixels="/file", shared=False)
    assert args.max_model_len == (8193 if role == "embedder" else 10246)
    assert args.enable_prefix_caching is (role == "reranker")
    assert (args.runner, args.convert, args.pooler_config.pooling_type) == ("pooling", "embed", "LAST")
    assert args.hf_overrides["qvl_head"] == ("embed" if role == "embedder" else "score")
    assert args.mm_processor_cache_gb == 0
    assert getattr(args, "mm_device_do_normalize", False) is False
    assert args.gpu_memory_utilization == 0.9
    assert compat.engine_args(config, found, side, pixels="/file", shared=True).gpu_memory_utilization == 0.45


def test_what_vllm_compiled_is_found_again_though_the_pixels_lie_elsewhere(pair: Pair) -> None:
    config = EngineConfig(models=(str(pair.embedder),), dtype="float32")
    (found,) = checkpoint.find(config)
    side = checkpoint.load_text_side(found)
    with vllm_warnings():
        first, second = (
            compat.engine_args(config, found, side, pixels=path, shared=False).create_engine_config()
            for path in ("/proc/1/fd/7", "/proc/2/fd/9")
        )
    assert first.additional_config.path != second.additional_config.path
    assert first.compute_hash() == second.compute_hash()


@pytest.mark.parametrize(
    ("chosen", "tools", "eager"), [(None, True, False), (None, False, True), (True, True, True)]
)
def test_a_cpu_s_model_is_compiled_where_it_can_be(
    *, chosen: bool | None, tools: bool, eager: bool, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "can_compile", lambda: tools)
    config = EngineConfig(models=(str(pair.embedder),), enforce_eager=chosen)
    (found,) = checkpoint.find(config)
    side = checkpoint.load_text_side(found)
    assert compat.engine_args(config, found, side, pixels="/file", shared=False).enforce_eager is eager


def test_what_the_user_set_in_the_environment_stays() -> None:
    code = (
        "import os; from qvl.engine import compat; compat.prepare_environment();"
        "print(os.environ['OMP_NUM_THREADS'], os.environ['VLLM_NO_USAGE_STATS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["7", "1"]
