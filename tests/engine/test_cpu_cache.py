"""What a model's KV cache takes of a machine without a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qvl.engine import cpu_cache
from qvl.engine.checkpoint import Checkpoint, of_role
from qvl.engine.cpu_cache import cache_bytes
from qvl.engine.errors import ConfigError
from tests.conftest import Pair

GIB = 1 << 30


@pytest.fixture
def model(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Of the 2B's sizes: 112 KiB of cache a token in bfloat16."""
    monkeypatch.setattr(cpu_cache, "size", lambda _: 4 * GIB)
    found = of_role("embedder", str(pair.embedder))
    sizes = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    text = {**found.text, **sizes, "max_position_embeddings": 262144}
    return replace(found, config={**found.config, "dtype": "bfloat16", "text_config": text})


def on(memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_cache, "host_memory", lambda: int(memory * GIB))


def test_eight_of_the_longest_where_there_is_room(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = model.max_length * model.kv_bytes_per_token(2)
    on(64, monkeypatch)
    assert cache_bytes(model, "auto") == cache_bytes(model, "bfloat16") == 8 * longest
    assert cache_bytes(model, "float32") == 16 * longest


def test_else_half_of_what_the_weights_leave(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    on(15.5, monkeypatch)
    assert cache_bytes(model, "auto") == 5 * GIB
    on(31, monkeypatch)
    assert cache_bytes(model, "auto", part=1 / 2) == 5 * GIB


def test_the_longest_item_always_fits(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = model.max_length * model.kv_bytes_per_token(2)
    on(6.5, monkeypatch)
    assert cache_bytes(model, "auto") == longest


@pytest.mark.parametrize(("dtype", "advice"), [("float32", "--dtype bfloat16"), ("auto", "smaller model")])
def test_what_cannot_fit_is_refused_before_it_is_loaded(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, dtype: str, advice: str
) -> None:
    on(6, monkeypatch)
    with pytest.raises(ConfigError, match=rf"GiB of weights.* 8192 tokens.* the 6\.0 GiB .*{advice}"):
        cache_bytes(model, dtype)


def test_quantised_weights_are_as_large_as_their_files(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(15.5, monkeypatch)
    quantised = replace(model, config={**model.config, "dtype": "float16", "quantization_config": {}})
    assert cache_bytes(quantised, "float32") == 5 * GIB
