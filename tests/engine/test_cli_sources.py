"""Where the command line takes its values from: arguments, environment, file and package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qvl.engine import cli, options
from qvl.engine.api.auth import load_keys
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.search.settings import Place
from tests.engine.conftest import Served, mistake, without_settings


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "qvl.toml"
    file.write_text(
        'embedder = "file"\nport = 1\nimage-pixels = 1\nitems = 1\nurl_fetch = false\napi_key = ["x", "y"]\n'
    )
    monkeypatch.setenv("QVL_PORT", "2")
    monkeypatch.setenv("QVL_IMAGE_PIXELS", "2")
    monkeypatch.setenv("QVL_SOMETHING_ELSE", "not ours")
    config = served("--config", str(file), "--image-pixels", "3")
    assert (config.engine.limits.image_pixels, config.port, config.engine.limits.items) == (3, 2, 1)
    assert (config.engine.embedder, config.engine.media.url_fetch) == ("file", False)
    assert config.api_key == ("x", "y")
    monkeypatch.setenv("QVL_CONFIG", str(file))
    monkeypatch.setenv("QVL_API_KEY", "from-the-environment")
    assert served().api_key == ("from-the-environment",)


def test_a_file_may_set_an_option_that_is_called_like_a_command(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "qvl.toml"
    file.write_text('models = ["/models/a", "/models/b"]\n')
    assert served("--config", str(file)).engine.models == ("/models/a", "/models/b")


def test_other_commands_read_the_servers_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And pass over what is said of the server alone; a key of no command is a mistake there too."""
    file, missing = tmp_path / "qvl.toml", str(tmp_path / "missing")
    text = f'models = ["{missing}"]\nhost = "h"\ndrain_seconds = 125\napi-key-file = "k"\nmax_replicas = 3\n'
    commands = {
        ("check",): f"{missing}: no such folder",
        ("embed", missing, "-o", f"{missing}.npz"): f"{missing}: No such file",
        ("search", "ask", "x", "--index", missing): "there is no index",
    }
    for command, told in commands.items():
        file.write_text(text)
        assert told in mistake(capsys, *command, "--config", str(file))
        file.write_text(text + "drain_second = 1\n")
        assert 'Unknown option: "[drain_second]"' in mistake(capsys, *command, "--config", str(file))


def test_several_values_in_a_variable_are_lines(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QVL_API_KEY", "KEY name=N rpm=600")
    monkeypatch.setenv("QVL_FILE_ROOTS", "/data/my pictures\n /more \n\n")
    config = served("m", "--port", "9")
    assert config.api_key == ("KEY name=N rpm=600",)
    assert config.engine.media.file_roots == ("/data/my pictures", "/more")


def test_a_model_may_have_several_names(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served("m", "--embedder-name", "a", "--embedder-name", "b").engine.embedder_name == ("a", "b")
    file = tmp_path / "qvl.toml"
    file.write_text('embedder_name = "a"\nreranker_name = ["b", "c"]\n')
    config = served("m", "--config", str(file)).engine
    assert (config.embedder_name, config.reranker_name) == (("a",), ("b", "c"))
    monkeypatch.setenv("QVL_RERANKER_NAME", "d\ne")
    assert served("m").engine.reranker_name == ("d", "e")


def test_a_blank_variable_opens_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QVL_API_KEY", "")
    monkeypatch.setenv("QVL_API_KEY_FILE", "")
    config = served("m")
    assert (config.api_key, config.api_key_file) == (("",), "")
    with pytest.raises(ConfigError, match="an API key is empty"):
        load_keys(replace(config, api_key_file=None))
    with pytest.raises(ConfigError, match="cannot read --api-key-file"):
        load_keys(replace(config, api_key=()))
    monkeypatch.setenv("QVL_FILE_ROOTS", "")
    capsys.readouterr()
    assert "--file-roots is empty" in mistake(capsys, "serve", "m")


def test_what_kubernetes_says_of_a_service_is_no_port(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "qvl.toml"
    file.write_text("port = 7\n")
    links = {"PORT": "tcp://10.0.0.1:8080", "PORT_8080_TCP": "tcp://10.0.0.1:8080", "SERVICE_PORT": "8080"}
    for name, value in links.items():
        monkeypatch.setenv(f"QVL_{name}", value)
    assert served("m").port == ServerConfig(engine=EngineConfig(embedder="x")).port
    assert served("m", "--config", str(file)).port == 7


def test_with_a_url_the_environment_and_the_file_ask_for_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QVL_DTYPE", "float32")
    settings, items = tmp_path / "qvl.toml", tmp_path / "in.jsonl"
    settings.write_text("stall-seconds = 5\n")
    items.write_text('{"text": "a"}\n')
    command = ["embed", str(items), "-o", str(tmp_path / "out.jsonl"), "--url", "http://127.0.0.1:9"]
    assert cli.main([*command, "--config", str(settings)]) == 3
    assert "cannot reach the server" in capsys.readouterr().err
    for option in (
        ("--dtype", "float32"),
        ("--file-roots", "/x"),
        ("--lora", "a=b"),
        ("--no-enforce-eager",),
    ):
        said = mistake(capsys, *command, *option)
        assert f"{option[0]} sets up an engine of this command's own, but --url asks another server" in said


def test_a_server_is_told_its_model(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would answer as the demo's pair, and an index would be filled with that one's vectors."""
    for others in ((), ("--port", "9"), ("--ray",), ("--replicas", "2")):
        assert "or `qvl serve bundled` for the demo's tiny pair" in mistake(capsys, "serve", *others)
    file = tmp_path / "qvl.toml"
    file.write_text('models = "of-the-file"\n')
    assert served("--config", str(file)).engine.models == ("of-the-file",)
    monkeypatch.setenv("QVL_MODELS", "a\nb")
    assert served().engine.models == ("a", "b")


def test_an_index_is_asked_with_models_that_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Place(index=str(tmp_path / "index")).open(writable=True).close()
    without_settings(monkeypatch)
    asked = ("search", "ask", "x", "--index", str(tmp_path / "index"))
    for given, told in (((), "or --url a running server"), (("--dtype", "float32"), "a server is given")):
        assert told in mistake(capsys, *asked, *given)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EMBEDER", "EMBEDDER"),
        ("API_KEY_FIL", "API_KEY_FILE"),
        ("API_KYE", "API_KEY"),
        ("APY_KEY", "API_KEY"),
        ("PAI_KEY", "API_KEY"),
        ("HSOT", "HOST"),
        ("PROT", "PORT"),
        ("PRT", "PORT"),
        ("PORTT", "PORT"),
    ],
)
def test_a_variable_that_is_almost_a_setting_is_refused(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QVL_EMBEDDER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("QVL_MIN_REPLICAS", "1")  # of another command
    for ours in ("VERSION", "TEST", "IMAGE_TAG", "EMBEDDER_URL", "CACHE_DIR", "TOKEN", "CORS_ORIGINS"):
        monkeypatch.setenv(f"QVL_{ours}", "x")
    monkeypatch.setenv(f"QVL_{name}", "x")
    assert f"no setting QVL_{name}; did you mean QVL_{meant}?" in mistake(capsys, "serve")


@pytest.mark.parametrize("command", [["embed"], ["rerank"], ["search", "add", "--index", "i"]])
def test_what_makes_files_is_told_its_model(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    out = [] if "add" in command else ["-o", str(tmp_path / "out.jsonl")]
    assert "no model: give --" in mistake(capsys, *command, str(tmp_path / "in.jsonl"), *out)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QVL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert options.cache_folder() == Path("/x/qvl")
    monkeypatch.setenv("QVL_CACHE", "/y")
    assert options.cache_folder() == Path("/y")
