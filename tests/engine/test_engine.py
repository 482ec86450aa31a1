"""What one replica is asked by, and what ends its start before anything is loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from qvl.engine.checkpoint import Checkpoint
from qvl.engine.config import EngineConfig, MediaConfig
from qvl.engine.dialects import tasks
from qvl.engine.engine import Engine
from qvl.engine.errors import ConfigError, NotFound
from qvl.engine.llm import LLM
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Content, EmbedRequest
from tests.engine.fake_client import FakeClient
from tests.engine.test_llm import with_model

MODEL = {"text_config": {"hidden_size": 8}}


@pytest.mark.parametrize("name", [None, "", "m", "alias", "org/m", "/cache/m"])
def test_a_model_answers_to_each_of_its_names_and_says_the_first(name: str | None) -> None:
    """The command line's own too, which clients of other servers send."""

    async def work(model: LLM, client: FakeClient) -> None:
        model.checkpoint = Checkpoint(Path("/cache/m"), ("m", "alias"), "embedder", MODEL, said="org/m")
        model.text = SimpleNamespace(tokenizer=SimpleNamespace(max_length=9))  # type: ignore[assignment]
        engine = Engine(EngineConfig(embedder="org/m"), [model], None, Metrics())  # type: ignore[arg-type]
        assert engine._model("embedder", name).called(name) == "m"
        with pytest.raises(NotFound, match="there is 'm', 'alias'"):
            engine._model("embedder", "other")
        with pytest.raises(NotFound) as caught:
            engine._model("embedder", "x" * 100_000)
        assert len(caught.value.message) < 200
        assert [card.id for card in engine.models()] == ["m", "alias"]
        asked = EmbedRequest(input=(Content(),), model=f"{name}:query")
        found = engine._embedder(asked)[1] if name else asked
        assert (found.model, found.instruction) == ((name, tasks.QUERY) if name else (asked.model, None))

    with_model(work)


def test_a_file_root_that_is_no_folder_ends_the_start(tmp_path: Path) -> None:
    """All that is asked for below it would be refused, one request at a time."""
    media = MediaConfig(file_roots=(str(tmp_path), str(tmp_path / "absent")))
    with pytest.raises(ConfigError, match=r"--file-roots .*absent: no such folder"):
        asyncio.run(Engine.start(EngineConfig(embedder="m", media=media)))
