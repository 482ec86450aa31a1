"""What is sent to each contestant, and how its answer is read. No engine starts here."""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from rich.console import Console

from benchmarks import unserved
from benchmarks.asks import Embed, Item, Rerank, Role
from benchmarks.contestants import Site, contestants
from benchmarks.contestants.qvl import Qvl
from benchmarks.contestants.stock import TEMPLATE, Stock, templated
from benchmarks.plan import Options
from benchmarks.profiles import CPU
from benchmarks.scene import Scene
from qvl.engine import EngineConfig, checkpoint
from tests.conftest import Pair
from tests.samples import jpeg, scenes

IMAGE = Item(image=jpeg(scenes(1, size=(64, 64))[0].image))
TEXT = Item(text="a cat")
VECTORS = np.array([[0.6, 0.8], [1, 0]], dtype="<f4")
STOCK = (Stock("vllm-default", tuned=False), Stock("vllm-tuned", tuned=True))


@pytest.fixture(scope="module")
def sites(pair: Pair) -> dict[Role, Site]:
    config = EngineConfig(embedder=str(pair.embedder), reranker=str(pair.reranker))
    return {
        found.role: Site(checkpoint=found, gpu=False, dtype="float32", gpu_share=0.3)
        for found in checkpoint.find(config)
    }


def encoded() -> bytes:
    data = [
        {"index": place, "embedding": base64.b64encode(vector.tobytes()).decode()}
        for place, vector in enumerate(VECTORS)
    ]
    return orjson.dumps({"data": data[::-1]})


@pytest.mark.parametrize("contestant", [Qvl(), *STOCK], ids=lambda each: each.name)
def test_vectors_are_read_in_order(contestant: Qvl | Stock) -> None:
    assert np.array_equal(contestant.answer(encoded()), VECTORS)


@pytest.mark.parametrize("contestant", [Qvl(), *STOCK], ids=lambda each: each.name)
def test_scores_are_read_in_the_documents_order(contestant: Qvl | Stock) -> None:
    results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    assert contestant.answer(orjson.dumps({"results": results})).tolist() == pytest.approx([0.1, 0.9])


def test_vllms_score_shape_is_read() -> None:
    data = [{"index": 0, "score": 0.25}, {"index": 1, "score": 0.5}]
    assert STOCK[1].answer(orjson.dumps({"data": data})).tolist() == [0.25, 0.5]


def test_stock_texts_are_in_the_models_template(sites: dict[Role, Site], pair: Pair) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pair.embedder)
    talk = [
        {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
        {"role": "user", "content": [{"type": "text", "text": "a cat"}]},
    ]
    assert templated("a cat") == tokenizer.apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True
    )
    shot = STOCK[0].shot(sites["embedder"], Embed((TEXT, TEXT)))
    assert orjson.loads(shot.body)["input"] == [templated("a cat")] * 2
    assert shot.items == 2


def test_media_go_one_to_a_conversation(sites: dict[Role, Site]) -> None:
    body = orjson.loads(STOCK[0].shot(sites["embedder"], Embed((IMAGE,))).body)
    assert body["add_generation_prompt"]
    assert body["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="one medium"):
        STOCK[0].shot(sites["embedder"], Embed((IMAGE, IMAGE)))


def test_tuned_stock_does_not_ask_for_an_echo(sites: dict[Role, Site]) -> None:
    ask = Rerank(IMAGE, (TEXT, IMAGE))
    assert [each.shot(sites["reranker"], ask).path for each in STOCK] == ["/rerank", "/score"]


def test_qvl_takes_plain_items(sites: dict[Role, Site]) -> None:
    video = Item(frames=(b"\xff\xd8\xff1", b"\xff\xd8\xff2"))
    body = orjson.loads(Qvl().shot(sites["embedder"], Embed((TEXT, IMAGE, video))).body)
    assert body["input"][0] == "a cat"
    assert set(body["input"][1]) == {"image"}
    assert len(body["input"][2]["video"]) == 2


def test_both_sides_get_the_same_machine(sites: dict[Role, Site]) -> None:
    site = sites["embedder"]
    assert site.environment["OMP_NUM_THREADS"] == "1"
    command = list(STOCK[0].command(site, 1))
    assert command[command.index("--kv-cache-memory-bytes") + 1] == str(site.kv_bytes)
    gpu = replace(site, gpu=True, quantization="fp8_per_channel")
    assert "OMP_NUM_THREADS" not in gpu.environment
    for each in (Qvl(), *STOCK):
        assert {"0.3", "fp8_per_channel"} <= set(each.command(gpu, 1)), each.name


@pytest.mark.parametrize(("cores", "api_servers", "workers"), [(16, 1, "16"), (16, 4, "4"), (16, 8, None)])
def test_tuned_stock_prepares_media_on_all_cores_of_a_gpu_s_host(
    sites: dict[Role, Site],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    api_servers: int,
    workers: str | None,
) -> None:
    monkeypatch.setattr("benchmarks.contestants.stock.cores", lambda: cores)
    tuned = Stock("vllm-tuned", tuned=True, api_servers=api_servers)
    command = list(tuned.command(replace(sites["embedder"], gpu=True), 1))
    flags = dict(itertools.pairwise(command))
    assert flags.get("--renderer-num-workers") == workers
    # vLLM refuses several workers beside its cache of prepared media.
    assert flags.get("--mm-processor-cache-gb") == ("0" if workers else None)
    assert "--renderer-num-workers" not in tuned.command(sites["embedder"], 1)


def test_the_template_makes_the_models_prompt() -> None:
    from jinja2 import Environment

    talk = [{"role": "query", "content": "Q"}, {"role": "document", "content": "D"}]
    shown = Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text())
    text = shown.render(messages=talk)
    assert text.endswith("<Query>:Q\n<Document>:D<|im_end|>\n<|im_start|>assistant\n")
    assert "<Instruct>: Given a search query, retrieve relevant candidates" in text
    assert "<Instruct>: Find it.<Query>" in shown.render(messages=talk, instruction="Find it.")


def test_a_run_ends_where_the_reference_does_not_answer(sites: dict[Role, Site], tmp_path: Path) -> None:
    options = Options(
        profile=CPU, models={}, workloads=(), contestants=(), modes=(), concurrencies=(), out=tmp_path
    )  # fmt: skip
    broken = replace(sites["embedder"], dtype="float7")
    said = io.StringIO()
    scene = Scene(options, Console(file=said), broken, [], tmp_path, "")
    with pytest.raises(SystemExit, match="nothing can be checked"):
        unserved.reference(scene)
    assert scene.missing == ["reference"]
    assert "float7" in said.getvalue()


def test_api_servers_and_replicas_are_swept() -> None:
    names = [each.name for each in contestants(("qvl", "vllm-tuned", "reference"), (1, 4), (1, 2))]
    assert names == ["qvl", "qvl-2-replicas", "vllm-tuned", "vllm-tuned-4-api"]
