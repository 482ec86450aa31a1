"""Embedding: token ids equal, cosine at least 0.999999."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qvl.engine import EmbedRequest
from qvl.engine.errors import QvlError
from qvl.engine.protocol import Content
from tests.parity import cases
from tests.parity.conftest import Both, Run

pytestmark = pytest.mark.engine

COSINE = 0.999999


@pytest.mark.parametrize("name", cases.ALL)
def test_equals_the_reference(
    name: str, both: Both, run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    content = cases.ALL[name]()
    request = EmbedRequest(input=(content,))
    ids = [both.embedder.embed_ids(as_item(content))]
    assert run(both.engine.embed_ids(request)) == ids
    if not both.compares(ids, name):
        return
    expected = both.embedder.embed([as_item(content)])[1]
    result = run(both.engine.embed(request))
    assert result.vectors.shape == expected.shape
    assert result.usage.total_tokens == len(ids[0])
    assert float(result.vectors[0] @ expected[0]) >= COSINE


BOUNDS = {"fewer": (4096, 300_000), "more": (4096, 4_000_000), "one number": (500_000, 500_000)}


@pytest.mark.parametrize("name", ["huge", "page", "one pixel", "everything"])
@pytest.mark.parametrize("bounds", BOUNDS)
def test_pixels_as_the_constructor_is_told(
    bounds: str,
    name: str,
    both: Both,
    run: Run[Any],
    as_item: Callable[[Content], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--min-pixels and --max-pixels."""
    least, most = BOUNDS[bounds]
    monkeypatch.setattr(both.engine._preparer._media, "pixels", (least, most))
    monkeypatch.setattr(both.embedder, "pixels", {"min_pixels": least, "max_pixels": most})
    test_equals_the_reference(name, both, run, as_item)


@pytest.mark.parametrize("instruction", ["Find the page", " Where? ", "", None])
def test_the_request_s_instruction_is_each_item_s(instruction: str | None, both: Both, run: Run[Any]) -> None:
    request = EmbedRequest(input=(Content(texts=("a",)), Content(texts=("b",))), instruction=instruction)
    ids, expected = both.embedder.embed([{"text": text, "instruction": instruction} for text in "ab"])
    assert run(both.engine.embed_ids(request)) == ids
    assert float((run(both.engine.embed(request)).vectors * expected).sum(1).min()) >= COSINE


@pytest.mark.parametrize("width", [1, 7, 64, 127])
def test_a_prefix_of_the_reference_s_vector(width: int, both: Both, run: Run[Any]) -> None:
    request = EmbedRequest(input=(Content(texts=("a red circle",)),), dimensions=width)
    expected = both.embedder.embed([{"text": "a red circle"}])[1][0, :width]
    vector = run(both.engine.embed(request)).vectors[0]
    assert float(vector @ expected) / float(np.linalg.norm(expected)) >= COSINE
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


@pytest.mark.parametrize("name", cases.REFUSED)
def test_refuses_where_the_reference_fails(
    name: str, both: Both, run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    content = cases.REFUSED[name]()
    with pytest.raises((StopIteration, ValueError, TypeError, RuntimeError)):
        both.embedder.embed([as_item(content)])
    with pytest.raises(QvlError):
        run(both.engine.embed(EmbedRequest(input=(content,))))


def test_refuses_to_cut_through_a_video(
    both: Both, run: Run[Any], as_item: Callable[[Content], dict[str, Any]]
) -> None:
    video = cases.frames(64, (64, 48))
    content = Content(videos=(video, video))
    with pytest.raises(ValueError, match="Mismatch in `video` token count"):
        both.embedder.embed([as_item(content)])
    with pytest.raises(QvlError, match="at most 8192"):
        run(both.engine.embed(EmbedRequest(input=(content,))))
