"""Workloads are what they say they are, and the same everywhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from benchmarks import pictures
from benchmarks.__main__ import bench
from benchmarks.asks import Ask, Embed, Item, Rerank, narrowed, spread
from benchmarks.plan import PROBES, Options, checked, slots
from benchmarks.profiles import CPU, GPU, SERVING, Mode, Sizes
from benchmarks.workloads import REPEATED, Workload, pool, workloads
from tests.conftest import Pair

MODES: tuple[Mode, ...] = ("closed", "open", "offline")
SIZES = Sizes(photo=96, small=64, frame=(64, 64), documents=5, document_tokens=40, image_documents=3)


@pytest.fixture(scope="module")
def tokenizer(pair: Pair) -> Path:
    return pair.embedder / "tokenizer.json"


@pytest.fixture(scope="module")
def every(tokenizer: Path) -> dict[str, Workload]:
    return workloads(tokenizer, SIZES)


def first(ask: Ask) -> Item:
    return ask.items[0] if isinstance(ask, Embed) else ask.documents[0]


def test_both_profiles_drive_every_workload(every: dict[str, Workload]) -> None:
    assert set(CPU.loads) == set(GPU.loads) == set(every)
    assert set(SERVING.loads) < set(every)


@pytest.mark.parametrize("name", CPU.loads)
def test_a_number_names_a_request(every: dict[str, Workload], name: str) -> None:
    workload = every[name]
    assert workload.make(3) == workload.make(3)
    assert workload.make(3) != workload.make(4)
    assert workload.make(3).count == workload.items


def test_only_repeated_media_repeat(every: dict[str, Workload]) -> None:
    for name, workload in every.items():
        seen = {
            file
            for number in range(2 * REPEATED)
            for file in _files(workload.make(number))
            if file is not None
        }
        if name == "rerank-images-repeated":
            assert len(seen) == SIZES.image_documents
        elif name.endswith("-repeated"):
            assert len(seen) == REPEATED
        elif seen:
            each = len(list(_files(workload.make(0))))
            assert len(seen) == 2 * REPEATED * each, name


def test_no_window_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_scenes", lambda size: range(4))
    assert len({pictures._placed((64, 64), number) for number in range(147_456)}) == 147_456
    of_reranks = {pictures._placed((64, 64), number, place) for number in range(4_000) for place in range(20)}
    assert len(of_reranks) == 80_000


def _files(ask: Ask) -> list[object]:
    items = ask.items if isinstance(ask, Embed) else (ask.query, *ask.documents)
    return [item.image or item.frames for item in items if item.image or item.frames]


@pytest.mark.parametrize(("name", "tokens"), [("passages", 512), ("long", 2048), ("rerank-text", 40)])
def test_texts_have_exactly_their_tokens(
    every: dict[str, Workload], tokenizer: Path, name: str, tokens: int
) -> None:
    counted = Tokenizer.from_file(str(tokenizer))
    for number in range(5):
        text = first(every[name].make(number)).text
        assert text is not None
        assert len(counted.encode(text, add_special_tokens=False).ids) == tokens


def test_short_texts_have_28_words(every: dict[str, Workload]) -> None:
    assert {len(str(first(every["short"].make(n)).text).split()) for n in range(20)} == {28}


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("photos", (96, 96), "JPEG"),
        ("small", (64, 64), "JPEG"),
        ("pages-png", (1240, 1754), "PNG"),
        ("pages-jpeg", (1240, 1754), "JPEG"),
    ],
)
def test_pictures(every: dict[str, Workload], name: str, size: tuple[int, int], kind: str) -> None:
    file = first(every[name].make(1)).image
    assert file is not None
    with Image.open(io.BytesIO(file)) as image:
        assert (image.size, image.format) == (size, kind)


def test_video_has_16_frames(every: dict[str, Workload]) -> None:
    frames = first(every["video"].make(0)).frames
    assert len(frames) == len(set(frames)) == 16


def test_pool_is_in_order(every: dict[str, Workload]) -> None:
    made = pool(every["short"], 7, 20, threads=3)
    assert made == [every["short"].make(number) for number in range(7, 27)]


def planned(*modes: Mode) -> Options:
    return Options(
        profile=CPU,
        models={},
        workloads=("short",),
        contestants=("qvl",),
        modes=modes,
        concurrencies=(),
        out=Path("unused"),
    )


def test_every_row_has_requests_that_are_checked(every: dict[str, Workload]) -> None:
    closed, opened, offline = (len(list(checked(planned(mode), [every["short"]]))) for mode in MODES)
    assert (closed, opened, offline) == (len(CPU.loads["short"].closed), PROBES, 1)


def test_open_loop_without_closed_is_refused() -> None:
    with pytest.raises(SystemExit, match="add --mode closed"):
        bench(mode=("open",))


def test_no_two_turns_share_a_request(every: dict[str, Workload]) -> None:
    options = planned("closed")
    made = slots(options, [every["short"]])
    numbers = [n for slot in made for start in slot.starts for n in range(start, start + slot.count)]
    assert len(made) == len(CPU.loads["short"].closed)
    assert len(numbers) == len(set(numbers))


def test_narrowing_keeps_places() -> None:
    items = tuple(Item(text=str(number)) for number in range(10))
    assert spread(10, 3) == (0, 4, 9)
    assert spread(2, 3) == (0, 1)
    assert spread(10, 1) == (0,)
    assert narrowed(Embed(items), (1, 3)) == Embed((items[1], items[3]))
    assert narrowed(Rerank(items[0], items), (9,)) == Rerank(items[0], (items[9],))
