"""What goes into vLLM: settings that the installed version knows."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvl.engine import checkpoint, compat, failure
from qvl.engine.config import BUNDLED, Dtype, EngineConfig
from qvl.engine.family import STEP_TOKENS
from qvl.engine.text_side import load_text_side
from tests.conftest import Pair
from tests.parity.conftest import vllm_warnings
from tests.tiny import write_checkpoint


def test_an_engine_can_be_asked_between_two_steps() -> None:
    vllm = importlib.util.find_spec("vllm")  # to import what is below it loads half of torch
    assert vllm and vllm.origin
    source = Path(vllm.origin).with_name("v1") / "engine" / "async_llm.py"
    assert "async def is_sleeping(self)" in source.read_text()


@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_every_right_setting_follows_from_the_path(pair: Pair, role: str) -> None:
    config = EngineConfig(models=(str(getattr(pair, role)),))
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    args = compat.engine_args(config, found, side, pixels="/file", shared=False)
    assert args.max_model_len == (8193 if role == "embedder" else 10246)
    assert args.enable_prefix_caching is (role == "reranker")
    assert (args.runner, args.convert, args.pooler_config.pooling_type) == ("pooling", "embed", "LAST")
    assert args.hf_overrides["qvl_head"] == ("embed" if role == "embedder" else "score")
    assert args.mm_processor_cache_gb == 0
    assert getattr(args, "mm_device_do_normalize", False) is False
    assert args.gpu_memory_utilization == 0.9
    assert compat.engine_args(config, found, side, pixels="/file", shared=True).gpu_memory_utilization == 0.45


@pytest.mark.parametrize(("ours", "vllms"), [(logging.INFO, "ERROR"), (logging.DEBUG, "WARNING")])
def test_what_vllm_warns_of_is_for_who_debugs(
    ours: int, vllms: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("VLLM_LOGGING_LEVEL", None)
    with vllm_warnings(), caplog.at_level(ours, "qvl.engine"):
        compat.prepare_environment()
    assert os.environ["VLLM_LOGGING_LEVEL"] == vllms


@pytest.mark.parametrize(("cpu", "tokens"), [(False, STEP_TOKENS), (True, 8192)])
def test_a_step_is_what_the_estimate_and_the_warm_up_take_it_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, cpu: bool, tokens: int
) -> None:
    monkeypatch.setattr(compat, "on_cpu", lambda: cpu)
    config = EngineConfig(models=(str(pair.embedder),))
    (found,) = checkpoint.find(config)
    args = compat.engine_args(config, found, load_text_side(found), pixels="/file", shared=False)
    assert args.max_num_batched_tokens == tokens


def test_no_more_run_at_once_than_a_step_has_tokens(pair: Pair) -> None:
    """vLLM would refuse it, after half a minute."""
    config = EngineConfig(models=(str(pair.embedder),), max_batched_tokens=10)
    (found,) = checkpoint.find(config)
    args = compat.engine_args(config, found, load_text_side(found), pixels="/file", shared=False)
    assert (args.max_num_batched_tokens, args.max_num_seqs) == (10, 10)


def test_a_model_over_several_gpus_stays_on_its_host(pair: Pair) -> None:
    """In an actor of Ray's vLLM would choose Ray, which may go to where the pixels are not."""
    config = EngineConfig(models=(str(pair.embedder),), tensor_parallel=2)
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    args = compat.engine_args(config, found, side, pixels="/file", shared=False)
    assert (args.tensor_parallel_size, args.distributed_executor_backend) == (2, "mp")


@pytest.mark.parametrize(
    ("own", "chosen", "served"),
    [
        ("float32", "auto", "bfloat16"),
        ("float32", "float16", "float16"),
        ("bfloat16", "auto", "bfloat16"),
        ("float16", "auto", "float16"),
    ],
)
def test_a_float32_checkpoint_is_not_served_in_float16(
    own: str, chosen: Dtype, served: str, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "tiny-embedding")
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": own}))
    config = EngineConfig(embedder=str(path), dtype=chosen)
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    with vllm_warnings():
        args = compat.engine_args(config, found, side, pixels="/file", shared=False)
        assert str(args.create_engine_config().model_config.dtype) == f"torch.{served}"


def test_what_vllm_compiled_is_found_again_though_the_pixels_lie_elsewhere(pair: Pair) -> None:
    config = EngineConfig(models=(str(pair.embedder),), dtype="float32")
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    with vllm_warnings():
        first, second = (
            compat.engine_args(config, found, side, pixels=path, shared=False).create_engine_config()
            for path in ("/proc/1/fd/7", "/proc/2/fd/9")
        )
    assert first.additional_config.path != second.additional_config.path
    assert first.compute_hash() == second.compute_hash()


@pytest.mark.parametrize(
    ("model", "chosen", "tools", "eager"),
    [
        ("", None, True, False),
        ("", None, False, True),
        ("", True, True, True),
        (BUNDLED, None, True, True),
        (BUNDLED, False, True, False),
    ],
)
def test_a_cpu_s_model_is_compiled_where_it_can_be(
    *, model: str, chosen: bool | None, tools: bool, eager: bool, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "can_compile", lambda: tools)
    config = EngineConfig(embedder=model or str(pair.embedder), enforce_eager=chosen)
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    assert compat.engine_args(config, found, side, pixels="/file", shared=False).enforce_eager is eager


def test_settings_that_vllm_refuses_say_what_is_wrong(pair: Pair) -> None:
    """pydantic's first line only counts the errors."""
    config = EngineConfig(models=(str(pair.embedder),))
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    args = compat.engine_args(config, found, side, pixels="/file", shared=False)
    args.max_num_batched_tokens = -5
    with vllm_warnings(), pytest.raises(ValueError, match="validation error") as caught:
        args.create_engine_config()
    assert failure.reason(caught.value) == (
        "max_num_batched_tokens: Input should be greater than or equal to 1"
    )
    args.max_num_batched_tokens, args.quantization = None, "int8"
    with vllm_warnings(), pytest.raises(ValueError, match="validation error") as caught:
        args.create_engine_config()
    assert failure.reason(caught.value).startswith("Unknown quantization method: int8")
    assert failure.reason(RuntimeError("two\nlines")) == "two"
    assert failure.reason(TypeError()) == "TypeError"


def test_what_the_user_set_in_the_environment_stays() -> None:
    code = (
        "import os; from qvl.engine import compat; compat.on_cpu = lambda: True;"  # or it imports vLLM to see
        "compat.prepare_environment();"
        "print(os.environ['OMP_NUM_THREADS'], os.environ['VLLM_NO_USAGE_STATS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["7", "1"]
