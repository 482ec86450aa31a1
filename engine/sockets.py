"""vLLM's sockets have names only while engines start.

It makes three a model below `VLLM_RPC_BASE_PATH` (default: the temporary folder) and never removes them, so
that each start of a server would leave some behind. Once both ends are connected nobody needs the names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTING = "VLLM_RPC_BASE_PATH"
_LONGEST_FOLDER = 107 - 37
"""Characters: the kernel's limit for a socket's path, less what vLLM appends."""
_lock = threading.Lock()
_folder = ""
_users = 0


@contextmanager
def named_sockets() -> Iterator[None]:
    """Around a start, until each engine has answered. Starts at the same time share one folder, which goes
    with the last; a folder that the user has set stays as it is."""
    global _users
    with _lock:
        if not _users:
            _open()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _close()


def _open() -> None:
    global _folder
    if _SETTING in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="qvl-")
    if len(folder) > _LONGEST_FOLDER:
        Path(folder).rmdir()
        return
    os.environ[_SETTING] = _folder = folder


def _close() -> None:
    global _folder
    if _folder:
        shutil.rmtree(_folder, ignore_errors=True)
        os.environ.pop(_SETTING, None)
        _folder = ""
