"""`qvl search` on the real engine: what it finds is what brute force and the reranker say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvl.engine.client import Client
from qvl.engine.client.items import png_url
from qvl.engine.demo.world import random_scene

pytestmark = pytest.mark.engine
COUNT = 60
QUERY = "a large red circle at the top left, over grass"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures and captions with metadata, as lines."""
    rng = np.random.default_rng(11)
    path = tmp_path_factory.mktemp("world") / "in.jsonl"
    lines = []
    for i in range(COUNT):
        scene = random_scene(rng)
        item: dict[str, Any] = {"text": scene.caption(rng)} if i % 3 else {"image": png_url(scene.draw(rng))}
        lines.append({"id": f"w{i}", **item, "metadata": {"place": scene.place, "number": i}})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def ask(*arguments: object) -> Any:
    command = [sys.executable, "-m", "qvl.engine.cli", "search", "ask", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_found_is_what_brute_force_finds_and_the_reranker_orders(
    qvl: Callable[..., str], server: Any, world: Path, tmp_path: Path
) -> None:
    index = ("--index", tmp_path / "index", "--url", server.url)
    assert f"{COUNT} put" in qvl("search", "add", world, *index, "--vectors", "float32")
    lines = {line["id"]: line for line in map(json.loads, world.read_text().splitlines())}
    items = {id: {key: line[key] for key in ("text", "image") if key in line} for id, line in lines.items()}
    instruction = "Retrieve the picture that fits."
    with Client(server.url) as client:
        vectors = client.embed(list(items.values()))
        wanted = client.embed([QUERY], instruction=instruction)[0]
        best = [list(items)[i] for i in np.argsort(-(vectors @ wanted), kind="stable")[:20]]
        options = (QUERY, *index, "--json", "--instruction", instruction)
        recalled = json.loads(ask(*options, "--no-rerank", "--top-n", 20))
        assert [each["id"] for each in recalled["results"]] == best
        assert recalled["reranked"] is False
        ranked = client.rerank(QUERY, [items[id] for id in best], instruction=instruction)
    both = json.loads(ask(*options, "--recall", 20, "--top-n", 5))
    assert [each["id"] for each in both["results"]] == [best[each.index] for each in ranked[:5]]
    scores = [each["relevance_score"] for each in both["results"]]
    np.testing.assert_allclose(scores, [each.score for each in ranked[:5]], atol=1e-5)
    few = json.loads(ask(QUERY, *index, "--json", "--filter", '{"number": {"lt": 7}, "place": ["grass"]}'))
    fits = {id for id, line in lines.items() if line["metadata"]["number"] < 7}
    assert {each["id"] for each in few["results"]} == {
        id for id in fits if lines[id]["metadata"]["place"] == "grass"
    }


def test_a_picture_asks_and_a_table_answers(
    qvl: Callable[..., str], server: Any, world: Path, tmp_path: Path
) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(pictures / f"{name}.png")
    index = ("--index", tmp_path / "index", "--url", server.url)
    qvl("search", "add", pictures, *index)
    # Asked as the documents were embedded, the picture itself is the nearest.
    as_embedded = ("--instruction", "Represent the user's input.")
    shown = ask("--image", pictures / "red.png", *index, "--no-rerank", *as_embedded)
    assert shown.index("red.png") < shown.index("blue.png")
    assert "2 of 2 recalled by" in shown
    assert "rerank is false" in shown
    # The server has no --file-roots: the reranker may not read the files, as is said below the table.
    told = ask("--image", pictures / "red.png", *index)
    assert told.count("url_forbidden") == 1
    assert "could not read 2 of 2 candidates" in " ".join(told.split())
