"""The workloads: each is a function from a number to a request. The same number is the same request,
other numbers are other texts and other pixels, so nothing repeats unless the workload says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks import pictures
from benchmarks.asks import Ask, Embed, Item, Rerank, Role
from benchmarks.profiles import Sizes
from benchmarks.words import Words, sentence

REPEATED = 4
"""Distinct media of a workload whose media repeat."""
SHORT_WORDS = 28


@dataclass(frozen=True, slots=True)
class Workload:
    """`items` is how many vectors or scores one request asks for."""

    name: str
    role: Role
    items: int
    make: Callable[[int], Ask]


def pool(workload: Workload, start: int, count: int, threads: int) -> list[Ask]:
    """Requests `start` to `start + count`; files are encoded side by side (Pillow releases the GIL)."""
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(workload.make, range(start, start + count)))


def workloads(tokenizer_file: Path, sizes: Sizes) -> dict[str, Workload]:
    """All of them by name."""
    words = Words(tokenizer_file)
    made = [*_texts(words), *_images(sizes), _video(sizes), *_reranks(words, sizes)]
    return {workload.name: workload for workload in made}


def _texts(words: Words) -> Iterator[Workload]:
    def short(number: int) -> Item:
        return Item(text=sentence(SHORT_WORDS, number))

    yield Workload("short", "embedder", 1, lambda n: Embed((short(n),)))
    yield Workload("short-64", "embedder", 64, lambda n: Embed(tuple(short(64 * n + i) for i in range(64))))
    yield _single("passages", lambda n: Item(text=words.tokens(512, n)))
    yield _single("long", lambda n: Item(text=words.tokens(2048, n)))


def _images(sizes: Sizes) -> Iterator[Workload]:
    photo = (sizes.photo, sizes.photo)
    small = (sizes.small, sizes.small)
    yield _single("photos", lambda n: Item(image=pictures.photo(photo, n)))
    yield _single("photos-repeated", lambda n: Item(image=_same(photo, n % REPEATED)))
    yield _single("small", lambda n: Item(image=pictures.photo(small, n)))
    yield _single("pages-png", lambda n: Item(image=pictures.page("PNG", n)))
    yield _single("pages-jpeg", lambda n: Item(image=pictures.page("JPEG", n)))
    yield _single("mixed", lambda n: Item(image=pictures.mixed(n)))


def _video(sizes: Sizes) -> Workload:
    return _single("video", lambda n: Item(frames=pictures.frames(sizes.frames, sizes.frame, n)))


def _reranks(words: Words, sizes: Sizes) -> Iterator[Workload]:
    photo = (sizes.photo, sizes.photo)
    count, length = sizes.documents, sizes.document_tokens

    def documents(number: int) -> tuple[Item, ...]:
        return tuple(Item(text=words.tokens(length, number, place)) for place in range(count))

    def query(number: int) -> Item:
        return Item(text=sentence(12, number, 1))

    def images(number: int) -> tuple[Item, ...]:
        side = (sizes.image_document, sizes.image_document)
        return tuple(Item(image=pictures.photo(side, number, i)) for i in range(sizes.image_documents))

    yield Workload("rerank-text", "reranker", count, lambda n: Rerank(query(n), documents(n)))
    yield Workload(
        "rerank-image-query",
        "reranker",
        count,
        lambda n: Rerank(Item(image=pictures.photo(photo, n)), documents(n)),
    )
    yield Workload(
        "rerank-image-query-repeated",
        "reranker",
        count,
        lambda n: Rerank(Item(image=_same(photo, n % REPEATED)), documents(n)),
    )
    same = cache(images)
    yield Workload("rerank-images", "reranker", sizes.image_documents, lambda n: Rerank(query(n), images(n)))
    yield Workload(
        "rerank-images-repeated",
        "reranker",
        sizes.image_documents,
        lambda n: Rerank(query(n), same(0)),
    )


_same = cache(pictures.photo)


def _single(name: str, make: Callable[[int], Item]) -> Workload:
    return Workload(name, "embedder", 1, lambda number: Embed((make(number),)))
