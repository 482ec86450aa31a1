"""What a start leaves behind: of one model when the other does not load, and of sockets when both do."""

from __future__ import annotations

import asyncio
import shutil
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from qvl.engine import Engine, EngineConfig
from qvl.engine.errors import NotStarted
from qvl.engine.llm import LLM
from tests.conftest import Pair, Server
from tests.parity.conftest import vllm_warnings
from tests.replicas import until

pytestmark = pytest.mark.engine


def test_one_that_does_not_load_leaves_nothing_of_the_other(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, while the second is loading."""
    stopped: list[str] = []
    stop = LLM.stop

    async def noted(model: LLM) -> None:
        stopped.append(model.checkpoint.name)
        await stop(model)

    monkeypatch.setattr(LLM, "stop", noted)
    damaged = Path(shutil.copytree(pair.embedder, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    # Whole as files are told to be: what is wrong with it, its engine finds.
    save_file({name: each[:1].contiguous() for name, each in load_file(weights).items()}, weights)
    config = EngineConfig(embedder=str(damaged), reranker=str(pair.reranker), dtype="float32")
    before = set(active_children())
    with (
        vllm_warnings(),
        pytest.raises(NotStarted, match=r"damaged: .* did not start: AssertionError: .*shape"),
    ):
        asyncio.run(Engine.start(config))
    assert stopped == [pair.reranker.name]
    until(lambda: set(active_children()) <= before)


def test_the_sockets_of_a_running_server_have_no_names_any_more(server: Server) -> None:
    """vLLM never removes them."""
    sockets = psutil.Process(server.process.pid).net_connections(kind="unix")
    paths = [Path(each.laddr) for each in sockets if each.laddr.startswith("/")]
    assert len(paths) >= 4, "one in and one out for each model"
    assert not [path for path in paths if path.parent.exists()]
