"""LoRA adapters on the real engine equal the reference with the adapter merged into its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qvl.engine import EmbedRequest, Engine, EngineConfig, adapters, checkpoint, compat
from qvl.engine.check.reference import Reference
from qvl.engine.errors import CheckpointError, ConfigError, NotFound
from qvl.engine.protocol import Content, RerankRequest
from tests.conftest import Pair
from tests.parity import cases
from tests.parity.conftest import Run, vllm_warnings
from tests.published import publish

RANK, ALPHA = 32, 64
PUBLISHED = ("base_model.model.model.language_model.",)
OTHERS = (
    "base_model.model.language_model.",
    "base_model.model.model.",
    "base_model.model.",
    "language_model.model.",
)
"""Where the layers are in what sentence-transformers trains, in a text model with and without its head, in
vLLM."""
TARGETS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
"""As the published ones."""
ITEMS = (Content(texts=("a red bicycle",)), Content(texts=("x",), images=(cases.image(96, 64),)))


def write_adapter(
    folder: Path, base: Path, seed: int, rank: int = RANK, prefixes: tuple[str, ...] = PUBLISHED
) -> Path:
    """PEFT's file format, random weights large enough to change the answers; layers take prefixes in turn."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removeprefix("model.language_model.").removesuffix(".weight")
        if module.startswith("layers.") and module.rpartition(".")[2] in TARGETS:
            rows, columns = weight.shape
            module = prefixes[int(module.split(".")[1]) % len(prefixes)] + module
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / 40
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) / 40
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": ALPHA, "target_modules": list(TARGETS)}
    config |= {"base_model_name_or_path": base.name, "bias": "none", "task_type": "FEATURE_EXTRACTION"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merged(base: Path, adapter: Path, out: Path) -> Path:
    """W + B·A·alpha/rank, in float32."""
    shutil.copytree(base, out)
    weights = {name: each.float() for name, each in load_file(base / "model.safetensors").items()}
    lora = load_file(adapter / "adapter_model.safetensors")
    for name in [each for each in lora if ".lora_A." in each]:
        target = "model.language_model." + name[name.index("layers.") :].replace(".lora_A", "")
        weights[target] += lora[name.replace("lora_A", "lora_B")] @ lora[name] * (ALPHA / RANK)
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.fixture(scope="module")
def folders(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lora")
    return {
        "wines": write_adapter(root / "wines", pair.embedder, 1),
        "birds": write_adapter(root / "birds", pair.embedder, 2, prefixes=OTHERS),
        "judge": write_adapter(root / "judge", pair.reranker, 3),
    }


@pytest.fixture(scope="module")
def saved(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The pair as sentence-transformers saves it: the embedder by the names of `Qwen3VLModel`, in float32."""
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("saved")
    made = Pair(root / pair.embedder.name, root / pair.reranker.name)
    for source, out in ((pair.embedder, made.embedder), (pair.reranker, made.reranker)):
        publish(Path(shutil.copytree(source, out)), "embedder" if source == pair.embedder else "reranker")
    AutoModel.from_pretrained(pair.embedder, dtype=torch.float32).save_pretrained(made.embedder)
    assert "language_model.norm.weight" in load_file(made.embedder / "model.safetensors")
    return made


@pytest.fixture(scope="module")
def engine(run: Run[Any], saved: Pair, folders: dict[str, Path]) -> Iterator[Engine]:
    config = EngineConfig(
        embedder=str(saved.embedder),
        reranker=str(saved.reranker),
        dtype="float32",
        lora=tuple(f"{name}={folder}" for name, folder in folders.items()),
        answer_cache=0,
        enforce_eager=True,
    )
    with vllm_warnings():
        started: Engine = run(Engine.start(config))
    yield started
    run(started.stop())


@pytest.mark.engine
def test_each_request_is_answered_by_its_own_adapter(
    engine: Engine,
    run: Run[Any],
    pair: Pair,
    folders: dict[str, Path],
    tmp_path: Path,
    as_item: Callable[[Content], dict[str, Any]],
) -> None:
    import asyncio

    names = ("wines", "birds", pair.embedder.name)

    async def together() -> list[Any]:
        asked = (engine.embed(EmbedRequest(input=ITEMS, model=name)) for name in names)
        return list(await asyncio.gather(*asked))

    results = run(together())
    assert tuple(each.model for each in results) == names
    for name, result in zip(names, results, strict=True):
        adapter = folders.get(name)
        folder = merged(pair.embedder, adapter, tmp_path / name) if adapter else pair.embedder
        _, expected = Reference(folder).embed([as_item(each) for each in ITEMS])
        assert float((result.vectors * expected).sum(1).min()) >= 0.999999, name
    assert float((results[0].vectors * results[1].vectors).sum(1).max()) < 0.99
    assert float((results[0].vectors * results[2].vectors).sum(1).max()) < 0.99


@pytest.mark.engine
def test_a_reranker_s_adapter_and_its_prefix_cache(
    engine: Engine, run: Run[Any], pair: Pair, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The same prompts, first without and then with it: cached blocks of the one are not the other's."""
    documents = tuple(Content(texts=(text,)) for text in ("a bike", "a boat", "a red one"))
    query = Content(texts=("a red bicycle, seen from the front, in good light",))
    items = [{"text": list(each.texts)} for each in documents]
    for name, folder in (
        (None, pair.reranker),
        ("judge", merged(pair.reranker, folders["judge"], tmp_path / "merged")),
        (None, pair.reranker),
    ):
        result = run(engine.rerank(RerankRequest(query=query, documents=documents, model=name)))
        _, _, expected = Reference(folder).rerank({"text": list(query.texts)}, items)
        assert np.abs(result.scores - expected).max() <= 1e-5, name


@pytest.mark.engine
def test_adapters_are_listed_and_others_are_not_found(engine: Engine, run: Run[Any], pair: Pair) -> None:
    listed = [(card.id, card.role) for card in engine.models()]
    assert listed == [
        (pair.embedder.name, "embedder"),
        ("wines", "embedder"),
        ("birds", "embedder"),
        (pair.reranker.name, "reranker"),
        ("judge", "reranker"),
    ]
    for name in ("judge", "wine"):
        with pytest.raises(NotFound, match="'wines', 'birds'"):
            run(engine.embed(EmbedRequest(input=ITEMS[:1], model=name)))


def test_bad_adapters_are_refused_before_the_engine_starts(pair: Pair, tmp_path: Path) -> None:
    both = checkpoint.find(EngineConfig(embedder=str(pair.embedder), reranker=str(pair.reranker)))
    good = write_adapter(tmp_path / "good", pair.embedder, 1, rank=8)
    assert [(each.role, each.rank) for each in adapters.find([f"a={good}"], both)] == [("embedder", 8)]

    def refused(match: str, *given: str, kind: type[ConfigError] = CheckpointError) -> None:
        with pytest.raises(kind, match=match):
            adapters.find(given, both)

    refused("write NAME=FOLDER", "good", kind=ConfigError)
    refused("already", f"{pair.reranker.name}={good}", kind=ConfigError)
    refused("already", f"a={good}", f"a={good}", kind=ConfigError)
    refused("no adapter_config", f"a={tmp_path}")
    config = json.loads((good / "adapter_config.json").read_text())
    (good / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "mine"}))
    refused("for the embedder or the reranker", f"a={good}", kind=ConfigError)
    assert [each.role for each in adapters.find([f"a={good}"], both[1:])] == ["reranker"]
    config["base_model_name_or_path"] = "Qwen/Qwen3-VL-Embedding-2B"
    (good / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="for Qwen3-VL-Embedding-2B, and no embedder is served"):
        adapters.find([f"a={good}"], both[1:])
    for setting, match in (
        ({"use_dora": True}, "with use_dora are not served; merge"),
        ({"lora_bias": True}, "with lora_bias"),
        ({"bias": "all"}, "with bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "with init_lora_weights"),
        ({"layer_replication": [[0, 1]]}, "with layer_replication"),
        ({"r": "many"}, r"adapter_config\.json: Expected `int`"),
        ({"r": 0}, r"Expected `int` >= 1"),
        ({"rank_pattern": {"q_proj": 0}}, r"`\$.rank_pattern"),
    ):
        (good / "adapter_config.json").write_text(json.dumps(config | setting))
        refused(match, f"a={good}")
    (good / "adapter_config.json").write_text(json.dumps(config))
    (good / "adapter_model.safetensors").write_bytes(b"junk")
    refused("not readable", f"a={good}")


def test_weights_that_vllm_would_leave_out_are_refused(pair: Pair, tmp_path: Path) -> None:
    """Those elsewhere it skips silently, and those of a smaller model it applies to a part."""
    lone = checkpoint.find(EngineConfig(embedder=str(pair.embedder)))
    folder = write_adapter(tmp_path / "adapter", pair.embedder, 1, rank=8)
    query = "layers.0.self_attn.q_proj.lora"
    for name, columns, match in (
        ("model.visual.blocks.0.attn.qkv.lora_A.weight", 128, "text layers' projections only"),
        (f"model.{query}_B.bias", 8, "text layers' projections only"),
        (f"text_model.{query}_A.weight", 128, "by names like .*: merge it instead"),
        (f"model.{query.replace('0', '4')}_A.weight", 128, "of another model than tiny-qwen3-vl-embedding"),
        (f"model.{query}_A.weight", 64, r"q_proj.lora_A.weight \(8, 64\) is of another model"),
    ):
        tensors = {f"base_model.model.{name}": torch.zeros(8, columns)}
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=match):
            adapters.find([f"a={folder}"], lone)


def test_layers_of_other_ranks_need_a_vllm_that_knows_them(pair: Pair, tmp_path: Path) -> None:
    """vLLM 0.26 scales them as all others, which gives other answers."""
    from vllm.lora.peft_helper import PEFTHelper

    folder = write_adapter(tmp_path / "uneven", pair.embedder, 1, rank=8)
    config = json.loads((folder / "adapter_config.json").read_text())
    patterns = {"rank_pattern": {"q_proj": 16}, "init_lora_weights": "gaussian"}
    (folder / "adapter_config.json").write_text(json.dumps(config | patterns))
    found = adapters.find([f"a={folder}"], checkpoint.find(EngineConfig(embedder=str(pair.embedder))))
    assert [(each.rank, each.uneven) for each in found] == [(16, True)]
    if hasattr(PEFTHelper(r=8, lora_alpha=8, target_modules=[]), "rank_pattern"):
        assert compat._lora_settings(found)["max_lora_rank"] == 16
    else:
        with pytest.raises(CheckpointError, match="this vLLM leaves out its rank_pattern"):
            compat._lora_settings(found)
