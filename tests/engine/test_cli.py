"""The command line: light, exact about mistakes, every setting an option, values from the right source."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from qvl.engine import cli
from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
from qvl.engine.errors import ConfigError, NotFound, NotStarted, Unavailable
from qvl.engine.jobs.settings import JobConfig
from tests.engine.conftest import CLEAN, QVL, Served, mistake, without_settings

COMMANDS = ("serve", "embed", "rerank", "batch", "check", "quantize", "models", "demo")

# Weight


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from qvl.engine.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "heavy = {'torch','vllm','ray','transformers','starlette','numpy','PIL','httpx','pyarrow'}\n"
        "heavy |= {'asyncio'}\n"
        "print('loaded:', *heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=CLEAN)
    assert done.stderr == "loaded:\n"
    assert done.stdout.strip()


def test_version() -> None:
    done = subprocess.run([*QVL, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"qvl {version('qvl')}\n"


# Every setting is an option


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("serve", (ServerConfig, EngineConfig, Limits, MediaConfig)),
        ("embed", (JobConfig, EngineConfig, Limits, MediaConfig)),
        ("rerank", (JobConfig, EngineConfig, Limits, MediaConfig)),
        ("check", (EngineConfig, Limits, MediaConfig)),
    ],
)
def test_each_field_is_an_option_with_its_default(
    command: str, settings: tuple[type[Any], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for cls in settings:
        for field in dataclasses.fields(cls):
            if field.name in {"engine", "limits", "media"}:
                continue
            option = f"--{field.name.replace('_', '-')}"
            assert re.search(rf" {option} ", shown), option
            if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
                assert f"[default: {field.default}]" in shown


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["serve"], ["Models", "Server", "Limits", "Media", "Ray (with --ray)"]),
        (["embed"], ["Job", "Models", "Limits", "Media", "Ray (with --ray)"]),
        (["search", "ask"], ["Index", "Question", "Models", "Limits", "Media"]),
    ],
)
def test_the_help_has_parts(command: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"╭─ (.*?) ─", shown) == ["Arguments", "Parameters", *parts]
    assert "--image-pixels" in shown.partition("╭─ Limits ")[2].partition("╭─")[0]


def test_options_reach_the_nested_settings(served: Served) -> None:
    config = served(
        *("--embedder", "e", "--reranker", "r", "--dtype", "float32", "--port", "9"),
        *("--api-key", "a", "--api-key", "b", "--image-pixels", "77", "--no-url-fetch", "--file-roots", "/x"),
    )
    assert (config.engine.embedder, config.engine.reranker) == ("e", "r")
    assert (config.engine.dtype, config.port, config.api_key) == ("float32", 9, ("a", "b"))
    assert (config.engine.limits.image_pixels, config.engine.limits.items) == (77, Limits().items)
    assert (config.engine.media.url_fetch, config.engine.media.file_roots) == (False, ("/x",))


def test_models_without_a_role_are_positional(served: Served) -> None:
    assert served("one", "two", "--port", "9").engine.models == ("one", "two")
    assert served("--models", "one", "--models", "two").engine.models == ("one", "two")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--embeder", "x"], "Unknown option: --embeder. Did you mean --embedder?"),
        (["serv"], 'Did you mean "serve"?'),
        (["serve", "x", "--port", "many"], 'unable to convert "many" into int'),
        (["serve", "x", "--dtype", "bfloat17"], 'Did you mean "bfloat16"?'),
        (["serve", "--embedder", "x", "--embedder-memory", "3"], "--embedder-memory must be above 0"),
        (["serve", "--config", "/no/such.toml"], "cannot read the configuration /no/such.toml"),
        (["embed", "in.jsonl"], "--out requires an argument"),
        (["embed", "/no/such.jsonl", "-o", "x.npz", "--embedder", "x"], "/no/such.jsonl: No such file"),
        (["embed", "in.jsonl", "-o", "x.npz", "--batch", "0", "--url", "u"], "--batch must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_settings(monkeypatch)
    assert message in mistake(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('embeder = "x"', "Did you mean --embedder?"),
        ("embedder = ", "is not TOML"),
        ('models = "m"\nport = "x"', "unable to convert"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "qvl.toml"
    file.write_text(text)
    said = mistake(capsys, "serve", "--config", str(file))
    assert message in said


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (ConfigError("two\nlines"), 2, "qvl: two lines\n"),
        (Unavailable("the server is away"), 3, "qvl: the server is away (unavailable)\n"),
        (NotFound("no route"), 1, "qvl: no route (not_found)\n"),
        (NotStarted("no memory"), 3, "qvl: no memory\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "qvl: /x: Permission denied\n"),
        (ModuleNotFoundError("no", name="vllm"), 2, "qvl: vLLM is not installed"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_failures_become_exit_codes(
    failure: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise failure

    monkeypatch.setattr(cli, "app", fail)
    assert cli.main([]) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = " ".join(QVL)
    shell = f"set -o pipefail; {command} serve --help | true; echo $?"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "1", "141"}
