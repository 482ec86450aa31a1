"""`python -m benchmarks.quality`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks import rows as runs
from benchmarks.asks import Role
from benchmarks.quality.rows import Row, table
from benchmarks.quality.run import Grid, Options
from benchmarks.quality.tasks import GENERATED, named
from benchmarks.quality.variants import SERVED

_WIDTH = 160

app = App(
    name="python -m benchmarks.quality",
    help="What each shortcut costs in answers, against float32. Exit code 1 under a floor.",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
)


@app.default
def quality(
    *,
    embedder: Path | None = None,
    reranker: Path | None = None,
    task: Annotated[tuple[str, ...], Parameter(negative=())] = GENERATED,
    only: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    count: int = 300,
    rankings: int = 20,
    gpu: bool = False,
    out: Path | None = None,
) -> int:
    """Run the grid, print it, and say which rows are under their floors.

    Parameters
    ----------
    embedder
        Checkpoint folder (default, where no model is given: the bundled pair).
    reranker
        Checkpoint folder.
    task
        Only these; several times. A name that the demo's world has not is a task of MTEB.
    only
        Only these rows of the grid, by name; several times.
    count
        Queries, and as many candidates, of a generated task.
    rankings
        Queries of a task that are reranked.
    gpu
        The engines and the reference are on a GPU; the rows say which.
    out
        Results file (default: results/quality/DATE-cpu.jsonl or -gpu.jsonl).
    """
    console = Console(stderr=True)
    variants = [each for each in SERVED if not only or each.name in only]
    if unknown := set(only) - {each.name for each in variants}:
        raise SystemExit(f"quality: no row {unknown.pop()!r}; there are {', '.join(e.name for e in SERVED)}")
    options = Options(
        models=models(embedder, reranker),
        tasks=[each for name in task for each in named(name, count)],
        rankings=rankings,
        variants=variants,
        gpu=gpu,
    )
    kind = "gpu" if gpu else "cpu"
    path = out or runs.RESULTS / "quality" / f"{datetime.now(UTC):%Y-%m-%d}-{kind}.jsonl"
    return show(Grid(options, console), console, path)


def show(grid: Grid, console: Console, path: Path | None) -> int:
    """Rows go to the file as they are made; the tables come at the end."""
    made: list[Row] = []
    for group in grid.rows():
        made += group
        if path:
            runs.append(path, group)
        console.print(f"{group[0].role:10}{group[0].variant:32} done", highlight=False, style="dim")
    wide = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    for role in dict.fromkeys(row.role for row in made):  # --only may leave one without rows
        wide.print(table(made, role))
    for line in grid.failures:
        wide.print(f"under its floor: {line}", highlight=False, style="red")
    return 1 if grid.failures else 0


def models(embedder: Path | None, reranker: Path | None) -> dict[Role, Path]:
    if embedder is None and reranker is None:
        from qvl.engine.demo.bundled import bundled_pair

        embedder, reranker = bundled_pair()
    given: dict[Role, Path | None] = {"embedder": embedder, "reranker": reranker}
    return {role: folder for role, folder in given.items() if folder}


if __name__ == "__main__":
    sys.exit(app())
