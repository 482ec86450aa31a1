"""The `vllm.general_plugins` entry point: runs in every vLLM process, so it only names the class, and in
processes of ours sees to it that they end with their server, and say why when they do not start."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import threading
from multiprocessing.connection import wait

from qvl.engine.model.last_words import FILE, LastWords

ARCHITECTURE = "QvlQwen3VL"
"""Our own name: other users of the same vLLM installation see no change."""

FOLLOW = "QVL_FOLLOW_PARENT"
"""Set by us, in our processes alone: vLLM's outlive a killed parent, and hold the device's memory."""


def register() -> None:
    """Idempotent. The class is given by name, so that nothing of torch is loaded here."""
    from vllm import ModelRegistry

    parent = multiprocessing.parent_process()
    if os.environ.get(FOLLOW) and parent and FOLLOW not in (each.name for each in threading.enumerate()):
        threading.Thread(target=follow, args=(parent.sentinel,), name=FOLLOW, daemon=True).start()
        gc.freeze()  # vLLM's imports
        gc.enable()
        if path := os.environ.get(FILE):
            logging.getLogger("vllm").addHandler(LastWords(path))

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "qvl.engine.model.qwen3_vl:QvlQwen3VL")


def follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
