"""A file that has no name: other processes open it by its handle, and no kill leaves it behind."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from qvl.engine.errors import ConfigError

_SHARED = "/dev/shm"
_log = logging.getLogger("qvl.engine")


def create(size: int) -> int:
    """Its handle; of `size` allocated bytes: a hole would be a crash on the day the memory runs out.

    In /dev/shm if it has the room. Raises ConfigError.
    """
    for folder in (_SHARED, tempfile.gettempdir()):
        with suppress(OSError):
            handle, name = tempfile.mkstemp(prefix="qvl-pixels-", dir=folder)
            Path(name).unlink()
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError:
                os.close(handle)
                continue
            if folder != _SHARED:
                said = "%s has no room for %d MiB of pixels (--media-memory), which go through %s, slower; "
                said += "a container is given it by --shm-size"
                _log.warning(said, _SHARED, size >> 20, folder)
            return handle
    raise ConfigError(
        f"no room for {size} bytes of shared pixels in /dev/shm or the temporary folder: lower --media-memory"
    )
