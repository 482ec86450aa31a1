"""What Ray says when it cannot be joined or started, whatever it raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvl.engine.errors import ConfigError
from qvl.ray_serve.join import join


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"cannot join the Ray cluster 127.0.0.1: Invalid address format"):
        join("127.0.0.1")


def test_a_temporary_folder_too_long_for_rays_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    with pytest.raises(ConfigError, match=r"cannot start Ray: .*AF_UNIX path length"):
        join(None)
