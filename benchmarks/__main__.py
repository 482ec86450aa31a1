"""`python -m benchmarks`."""

from __future__ import annotations

import dataclasses
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks import profiles, rows
from benchmarks.asks import ROLES, Role
from benchmarks.contestants import NAMES
from benchmarks.plan import Options
from benchmarks.profiles import Mode, Profile

Name: TypeAlias = Literal["qvl", "vllm-default", "vllm-tuned", "reference"]
_TABLE_WIDTH = 150
Many: TypeAlias = Annotated[tuple[str, ...], Parameter(negative=())]

app = App(
    name="python -m benchmarks",
    help="qvl beside stock vLLM and the Hugging Face code, in one run.",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


@app.default
def bench(
    *,
    gpu: bool = False,
    serving: bool = False,
    embedder: Path | None = None,
    reranker: Path | None = None,
    workload: Many = (),
    contestant: tuple[Name, ...] = (),
    mode: tuple[Mode, ...] = (),
    concurrency: tuple[int, ...] = (),
    seconds: float | None = None,
    rounds: int | None = None,
    api_servers: tuple[int, ...] = (1,),
    replicas: tuple[int, ...] = (1,),
    quantization: str | None = None,
    out: Path | None = None,
) -> int:
    """Run a set, print ratios and where the aims stand. Exit code 1: a row is void or a contestant missing.

    Parameters
    ----------
    gpu
        The GPU set; give --embedder and/or --reranker a folder with real dimensions.
    serving
        The serving set: a pair of one layer, whose rows show what everything but the model costs.
    embedder
        Checkpoint folder (default on a CPU: the tiny pair).
    reranker
        Checkpoint folder (default on a CPU: the tiny pair).
    workload
        Only these; several times. `list` names them.
    contestant
        Only these.
    mode
        Only these.
    concurrency
        Requests in flight in closed loop, in place of each workload's own.
    seconds
        Measured for each row and contestant.
    rounds
        Turns that the contestants take at each row.
    api_servers
        Counts of vllm-tuned's API servers, one server each (GPU only).
    replicas
        Counts of qvl's replicas behind its port, one server each; the ratios are of `qvl` with one.
    quantization
        Passed to both vLLM and qvl, e.g. fp8_per_channel.
    out
        Results file (default: results/DATE-PROFILE.jsonl).
    """
    from benchmarks import run

    console = Console(stderr=True)
    if gpu and serving:
        raise SystemExit("benchmarks: --serving is of a CPU: there a model costs more than all around it")
    profile = profiles.GPU if gpu else profiles.SERVING if serving else profiles.CPU
    folders = models(profile, embedder, reranker)
    profile = _adjusted(profile, seconds, rounds)
    modes = mode or profile.modes
    if "open" in modes and "closed" not in modes:
        raise SystemExit("benchmarks: --mode open starts at the closed loop's rate; add --mode closed")
    options = Options(
        profile=profile,
        models=folders,
        workloads=_known(workload or tuple(profile.loads), profile),
        contestants=contestant or NAMES,
        modes=modes,
        concurrencies=concurrency,
        api_servers=api_servers,
        replicas=replicas,
        quantization=quantization,
        out=out or rows.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{profile.name}.jsonl",
    )
    return told(*run.run(options, console), options.out)


@app.command
def judge(
    *,
    gpu: bool = False,
    embedder: Path | None = None,
    reranker: Path | None = None,
    contestant: tuple[Name, ...] = (),
    out: Path | None = None,
) -> int:
    """Drive the servers with `vllm bench serve` (embeddings and rerank) as an outside judge."""
    from benchmarks import judge as outside

    profile = profiles.GPU if gpu else profiles.CPU
    options = Options(
        profile=profile,
        models=models(profile, embedder, reranker),
        workloads=(),
        contestants=contestant or NAMES,
        modes=(),
        concurrencies=(),
        out=out or rows.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{profile.name}.jsonl",
    )
    return told(*outside.run(options, Console(stderr=True)), options.out)


@app.command
def report(*results: Path, out: Path | None = None) -> int:
    """Print the tables of result files and draw their figures (default: all in results/, soaks too)."""
    from benchmarks import figures, promises, tables

    files = results or tuple(sorted(rows.RESULTS.glob("*.jsonl")))
    found = rows.latest(rows.read(files, rows.Row))
    console = _wide()
    tables.show(found, console)
    for path in figures.draw(found, out or rows.RESULTS):
        console.print(f"drew {path}")
    soaks = [] if results else promises.latest(sorted(promises.RESULTS.glob("*.jsonl")))
    for soak in soaks:
        console.print(promises.table(soak))
    return 0 if found or soaks else 1


@app.command
def weights(source: Path, out: Path, /, *, seed: int = 0) -> int:
    """Write random weights for a folder that has a config and a tokenizer but none: real dimensions.

    Parameters
    ----------
    source
        The folder with config.json and the tokenizer's files.
    out
        The checkpoint folder to make; its name should hold `embed` or `rerank`.
    seed
        Of the weights.
    """
    from benchmarks.weights import write

    write(source, out, seed)
    return 0


@app.command(name="list")
def list_() -> int:
    """Name the workloads of both sets."""
    for name, load in profiles.GPU.loads.items():
        sys.stdout.write(f"{name:30} GPU {load.closed}  CPU {profiles.CPU.loads[name].closed} in flight\n")
    return 0


def models(profile: Profile, embedder: Path | None, reranker: Path | None) -> dict[Role, Path]:
    given = dict(zip(ROLES, (embedder, reranker), strict=True))
    named = {role: folder for role, folder in given.items() if folder is not None}
    if named:
        return named
    if profile.gpu:
        raise SystemExit("benchmarks: --gpu needs --embedder and/or --reranker with a checkpoint folder")
    from qvl.engine.options import cache_folder
    from tests.tiny import write_pair, write_thin_pair

    write = write_thin_pair if profile is profiles.SERVING else write_pair
    return dict(zip(ROLES, write(cache_folder() / "tiny"), strict=True))


def told(made: list[rows.Row], missing: list[str], out: Path) -> int:
    """Prints the tables; the exit code."""
    from benchmarks import tables

    tables.show(made, _wide())
    void = sum(row.void is not None for row in made)
    sys.stderr.write(f"{len(made)} rows added to {out}, {void} of them void\n")
    for name in missing:
        sys.stderr.write(f"left out: {name}\n")
    return 0 if made and not void and not missing else 1


def _known(names: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    for name in names:
        if name not in profile.loads:
            raise SystemExit(f"benchmarks: no workload {name!r}; there are {', '.join(profile.loads)}")
    return names


def _adjusted(profile: Profile, seconds: float | None, rounds: int | None) -> Profile:
    return dataclasses.replace(
        profile,
        seconds=seconds or profile.seconds,
        rounds=profile.rounds if rounds is None else max(1, rounds),
    )


def _wide() -> Console:
    """Standard output; in a pipe as wide as the tables."""
    return Console() if sys.stdout.isatty() else Console(width=_TABLE_WIDTH)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        sys.stderr.write("benchmarks: stopped\n")
        sys.exit(130)
