"""What Ray says when it cannot be joined or started, whatever it raises."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qvl.engine.errors import ConfigError, NotStarted
from qvl.ray_serve.join import join


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"cannot join the Ray cluster 127.0.0.1: Invalid address format"):
        join("127.0.0.1")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("Version mismatch: the cluster\nhas Ray 1"), ConfigError),
        (RuntimeError("The current node timed out during startup"), NotStarted),
        (ConnectionError("no GCS"), NotStarted),
    ],
)
def test_what_may_pass_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[ConfigError]
) -> None:
    def init(**options: object) -> None:
        raise raised

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(ConfigError) as told:
        join("a:1")
    assert type(told.value) is kind
    assert "\n" not in str(told.value)


def test_a_temporary_folder_too_long_for_rays_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    with pytest.raises(ConfigError, match=r"cannot start Ray: .*AF_UNIX path length"):
        join(None)
