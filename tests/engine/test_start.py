"""The garbage collector rests while vLLM is imported, and not longer, in every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MAIN = """
import gc, json, multiprocessing, sys, types
from qvl.engine import cli
from qvl.engine.model import plugin


def spawned(out):
    # What of vLLM the plugin asks for.
    registry = types.SimpleNamespace(get_supported_archs=lambda: [], register_model=lambda *names: None)
    sys.modules["vllm"] = types.SimpleNamespace(ModelRegistry=registry)
    seen = [gc.isenabled()]
    plugin.register()
    out.put([*seen, gc.isenabled(), gc.get_freeze_count() > 1000])


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=spawned, args=(out,))
    process.start()
    print(json.dumps([gc.isenabled(), *out.get(timeout=300)]))
    process.join()
"""


def test_it_rests_in_a_spawned_process_until_the_plugin(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(MAIN)
    done = subprocess.run(
        [sys.executable, main], env={"QVL_FOLLOW_PARENT": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, False, True, True]


def test_an_engine_that_fails_to_start_leaves_it_on() -> None:
    code = (
        "import asyncio, gc\n"
        "from qvl.engine import EngineConfig\n"
        "from qvl.engine.errors import ConfigError, QvlError\n"
        "from qvl.engine.start import start_engine\n"
        "try:\n"
        "    asyncio.run(start_engine(EngineConfig(embedder='/nowhere')))\n"
        "except (ConfigError, QvlError) as error:\n"
        "    print(type(error).__name__, gc.isenabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["CheckpointError", "True"], done.stderr
