"""What vLLM's profiling run on a GPU asks of the model, which a CPU's start leaves out: in vLLM, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import Pair

pytestmark = pytest.mark.engine

PROGRAM = """
import json, sys
from qvl.engine import checkpoint, compat
from qvl.engine.text_side import load_text_side
from qvl.engine.media.arena import Arena
from qvl.engine.config import EngineConfig

compat.prepare_environment()
import torch
from vllm.v1.engine.llm_engine import LLMEngine


def profile(model):
    seen = []
    model.visual.register_forward_pre_hook(lambda _, inputs: seen.append(list(inputs[0].shape)))
    if model.pooler.tail is not None:
        model.pooler.tail.register_forward_pre_hook(lambda _, inputs: seen.append(list(inputs[0].shape)))
    with torch.inference_mode():
        (made,) = model.embed_multimodal(
            pixel_values=torch.zeros(16, 1536), image_grid_thw=torch.tensor([[1, 4, 4]])
        )
    return seen, list(made.shape), bool(made.isfinite().all())


config = EngineConfig(models=(sys.argv[1],), dtype="float32", enforce_eager=True)
(found,) = checkpoint.find(config)
arena = Arena(1 << 20)
args = compat.engine_args(
    config, found, load_text_side(found), pixels=str(arena.path), shared=False
)
engine = LLMEngine.from_engine_args(args)
print(json.dumps(engine.apply_model(profile)[0]))
"""


def test_profiling_warms_both_kinds_of_patches_and_a_lone_row(pair: Pair) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(pair.reranker)],
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen, made, finite = json.loads(done.stdout.splitlines()[-1])
    sizes = (4, 32, 32, 256)
    assert seen == [*([n, 768] for n in sizes), *([n, 1536] for n in sizes), [1, 128], [16, 1536]]
    assert made[0] == 4
    assert finite
