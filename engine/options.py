"""Where option values come from: the command line, then `QVL_*`, then `--config FILE`.

Options are the fields of the settings dataclasses, flat (`limits.image_pixels` is `--image-pixels`); each
source here only fills what an earlier one left unset.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from cyclopts import App, Argument, ArgumentCollection, Group, Parameter, env_var_split
from cyclopts.argument import update_argument_collection
from cyclopts.config import Env

from qvl.engine.config import EngineConfig, Limits, MediaConfig, option
from qvl.engine.errors import ConfigError

_ENGINE = {
    f"--{field.name.replace('_', '-')}"
    for settings in (EngineConfig, Limits, MediaConfig)
    for field in fields(settings)
}

_LINKS = ("tcp://", "udp://", "sctp://")
"""How the addresses of services begin; no value of ours does."""
_LINK = re.compile(r"QVL_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""How Kubernetes calls its variables of Services named `qvl` or `qvl-…`."""
_OTHERS = {"CACHE", "COMMIT", "CORS_ORIGINS", "FOLLOW_PARENT", "LAST_WORDS"}
"""Of ours that are no options: `QVL_CACHE`, and what processes of ours tell each other."""
_OPPOSITES = ("--no-", "--empty-")
_ALIKE = 0.88
"""A letter or two of a name: `EMBEDER`, `PORTS`, but not `VERSION` for `VISION` or `EMBEDDER_URL`."""

_SHORTEST = 4
"""Letters of a name that may be meant by another one; of `KEY` and `URL` too many names are a letter away."""

ConfigFile: TypeAlias = Annotated[
    Path | None, Parameter(help="TOML file with the same options as keys; the command line wins.")
]
Source: TypeAlias = Annotated[Path, Parameter(name="IN")]
Out: TypeAlias = Annotated[Path, Parameter(alias="-o")]
Model: TypeAlias = Annotated[str, Parameter(name="MODEL")]

T = TypeVar("T")


def flat(cls: type[T], heading: str) -> type[T]:
    """Make the fields of a settings dataclass options of their own: `--port`, not `--server.port`; the help
    lists them under the heading, the first one first."""
    return Parameter(name="*", group=_heading(heading))(cls)


_heading = cache(Group.create_ordered)


def shown_default(value: Any) -> str | None:
    """How a default reads in the help; empty ones say nothing that the text does not."""
    return None if value is None or value == () else str(value)


def lines(kind: Any, value: str, *, delimiter: str | None = None) -> list[str]:
    """The values in an environment variable: one a line where the option takes several, as space may be in
    one (`KEY name=N rpm=600`, a folder). A blank variable is a blank value: an empty key opens nothing."""
    del delimiter
    return [each.strip() for each in env_var_split(kind, value, delimiter="\n") if each.strip()] or [value]


environment = Env("QVL_", command=False, show=False)


def misspelt(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """A variable that is almost one of ours would set nothing: a server that asks for no key, say."""
    given = [name for name in sorted(os.environ) if name.startswith("QVL_") and not _LINK.fullmatch(name)]
    if not given:  # to ask every command for its options takes a tenth of a second
        return
    known = {*_OTHERS, *map(_setting, _options(app.app_stack.stack[-1][0]))}
    for name in given:
        own = name.removeprefix("QVL_")
        if own in known:
            continue
        if meant := get_close_matches(own, known, 1, _ALIKE) or _slips(own, known):
            raise ConfigError(f"there is no setting {name}; did you mean QVL_{meant[0]}?")


def _slips(own: str, known: Iterable[str]) -> list[str]:
    """Those of which it has every letter in another order, or one letter more, less or other."""
    return [each for each in sorted(known) if len(each) >= _SHORTEST and _is_slip(own, each)]


def _is_slip(own: str, meant: str) -> bool:
    short, long = sorted((own, meant), key=len)
    if len(short) == len(long):
        return sorted(own) == sorted(meant) or sum(a != b for a, b in zip(own, meant, strict=True)) == 1
    return short in (long[:at] + long[at + 1 :] for at in range(len(long)))


def _options(app: App) -> set[str]:
    """Of all commands, without their opposites."""
    found: set[str] = set()
    for name in app:
        if not name.startswith("-"):
            found |= _options(app[name])
            if app[name].default_command:
                found |= {each for each in _own(app[name]) if not each.startswith(_OPPOSITES)}
    return found


def _own(command: App) -> set[str]:
    return {name for argument in command.assemble_argument_collection() for name in argument.names}


def _setting(option: str) -> str:
    return option.lstrip("-").replace("-", "_").upper()


def service_links(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Kubernetes tells every pod beside a Service called `qvl` that `QVL_PORT` is `tcp://10.0.0.1:8080`."""
    for argument in arguments:
        argument.tokens[:] = [
            token
            for token in argument.tokens
            if token.source != environment.source or not token.value.startswith(_LINKS)
        ]


def config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """The keys of `--config FILE`: the option names, with `-` or `_`."""
    path = _value(arguments, "--config")
    if path is None:
        return
    try:
        with Path(path).open("rb") as file:
            given = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    if commands[-1:] != ("serve",):
        # One file for all of them: what is said of the server alone is not theirs.
        others = _own(app.app_stack.stack[-1][0]["serve"]) - {
            name for each in arguments for name in each.names
        }
        given = {key: value for key, value in given.items() if option(key) not in others}
    # Not by cyclopts' own `Toml`, which passes over keys that are also commands: `models`, `rerank`.
    update_argument_collection(
        given, path, arguments, app.app_stack.stack[-1], root_keys=(), allow_unknown=False
    )


def others_engine(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """With `--url` another's engine answers: what the environment or a file says of engines is for other
    commands, and would ask for one of our own here; what is said of one beside it is a mistake."""
    if _value(arguments, "--url") is None:
        return
    for argument in arguments:
        if not (_ENGINE & set(argument.names)):
            continue
        if said := next((token for token in argument.tokens if token.source == "cli"), None):
            name = said.keyword or argument.name
            raise ConfigError(
                f"{name} sets up an engine of this command's own, but --url asks another server: set it there"
            )
        argument.tokens.clear()


def positional_models(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """`qvl serve DIR DIR` is `--models DIR --models DIR`: the engine's settings are built from one place."""
    given = _find(arguments, "MODEL")
    target = _find(arguments, "--models")
    for token in given.tokens if given and target else ():
        assert target is not None
        target.append(token.evolve(index=len(target.tokens)))


def a_model(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """A server that is told none says so, rather than to answer as another than the one that was meant."""
    named = ("--embedder", "--reranker", "--models")
    if commands[-1:] == ("serve",) and all(_value(arguments, name) is None for name in named):
        EngineConfig()  # raises: it says what to give


SOURCES = (
    environment,
    misspelt,
    service_links,
    config_file,
    others_engine,
    positional_models,
    a_model,
)


def cache_folder() -> Path:
    """`QVL_CACHE`, or `qvl` in the user's cache folder."""
    if own := os.environ.get("QVL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qvl"


def _find(arguments: Iterable[Argument], name: str) -> Argument | None:
    return next((argument for argument in arguments if name in argument.names), None)


def _value(arguments: Iterable[Argument], name: str) -> str | None:
    argument = _find(arguments, name)
    return argument.tokens[0].value if argument and argument.tokens else None
