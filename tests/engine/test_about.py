"""The line that says what runs: versions, GPUs, and settings without what is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from qvl.engine import about, machine
from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
from qvl.ray_serve.config import DeployConfig, load

SMI = """#!/bin/sh
echo 'NVIDIA H200, 143771, 9.0, 580.95.05'
echo 'NVIDIA H200, 143771, 9.0, 580.95.05'
"""
PATHS = {"api_key_file", "tls_key"}


def config(**settings: Any) -> ServerConfig:
    return ServerConfig(engine=EngineConfig(models=("a",)), **settings)


def names(settings: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for each in fields(settings):
        value = getattr(settings, each.name)
        found += names(value) if is_dataclass(value) else [(each.name, each.type)]
    return found


@pytest.fixture
def asked_anew() -> Iterator[None]:
    machine.gpus.cache_clear()
    yield
    machine.gpus.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_versions_and_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    line = about.line(config())
    assert re.match(r"qvl \d\S*, vllm \d\S*, torch \d\S*, transformers \d\S*, Python 3\.\d+\.\d+; ", line)
    assert "; 2 × NVIDIA H200 (driver 580.95.05); " in line
    monkeypatch.setenv("PATH", "/no/such")
    machine.gpus.cache_clear()
    assert "; no GPU that nvidia-smi tells of; " in about.line(config())


def test_settings_that_are_not_the_default() -> None:
    engine = EngineConfig(models=("a",), limits=Limits(items=7), media=MediaConfig(workers=2))
    told = dict(about.changed(ServerConfig(engine=engine, replicas=2)))
    assert told == {"models": "('a',)", "items": "7", "workers": "2", "replicas": "2"}
    deployed = load(
        {"embedder": "a", "reranker": "b", "layout": "separate", "rerankers": {"max_replicas": 3}}
    )
    assert [name for name, _ in about.changed(deployed)] == ["embedder", "reranker", "layout", "max_replicas"]


def test_no_secret_is_told() -> None:
    secret = {"api_key": ("hidden-1 name=a",), "index_key": "hidden-2"}
    urls = {"index": "http://me:hid@hidden-3@q:6333/c?key=hidden-4", "otlp": "https://hidden-5@t:4318"}
    line = about.line(config(**secret, **urls))
    assert "hidden" not in line
    assert "q:6333/c" in line and "t:4318" in line


def test_every_setting_that_may_be_a_secret_is_one() -> None:
    """A new option whose name sounds like it is to be judged here."""
    every = names(DeployConfig(server=config()))
    sound = {name for name, kind in every if "str" in str(kind) and re.search("key|secret|token|pass", name)}
    assert sound - PATHS == about.SECRETS
