"""Where vLLM's sockets are while engines start. (Of a running server: tests/system/test_start.py.)"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from qvl.engine.sockets import named_sockets

SETTING = "VLLM_RPC_BASE_PATH"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)


def test_the_folder_goes_with_the_last_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    first, second = named_sockets(), named_sockets()
    first.__enter__()
    folder = Path(os.environ[SETTING])
    (folder / "socket").touch()
    second.__enter__()
    assert os.environ[SETTING] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    first.__exit__(None, None, None)
    assert (folder / "socket").exists()
    second.__exit__(None, None, None)
    assert not folder.exists()
    assert SETTING not in os.environ
    with named_sockets():
        assert os.environ[SETTING] != str(folder)


def test_a_folder_of_the_users_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path))
    with named_sockets():
        assert os.environ[SETTING] == str(tmp_path)
    assert os.environ[SETTING] == str(tmp_path)
    assert tmp_path.exists()


def test_a_folder_too_long_for_a_socket_is_left_to_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 70)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with named_sockets():
        assert SETTING not in os.environ
    assert not list(long.iterdir())
