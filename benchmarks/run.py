"""One run: for each model the reference first, then all servers up, row by row, in alternating order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks import meter, plan, processes, rows, unserved
from benchmarks.asks import Role
from benchmarks.contestants import Contestant, Site, contestants
from benchmarks.drive import Driver, Entrant
from benchmarks.load import Clients
from benchmarks.plan import Options
from benchmarks.rows import Row
from benchmarks.scene import Scene
from benchmarks.workloads import workloads
from qvl.engine import checkpoint

GPU_MEMORY = 0.88
"""Share of the GPU that the servers of one model divide among themselves."""
_SERVED = {"closed", "open"}


def run(options: Options, console: Console) -> tuple[list[Row], list[str]]:
    """All rows, each in the results file as soon as it is made; and who was left out."""
    made, missing = [], []
    logs = Path(tempfile.mkdtemp(prefix="qvl-bench-"))
    console.print(f"servers' logs: {logs}", style="dim", highlight=False)
    date = rows.now()
    console.print(
        f"after a sleep, work costs {meter.waking():.1f} × the CPU here", style="dim", highlight=False
    )
    for role in options.models:
        scene = prepared(options, console, role, logs, date)
        for row in _rows(scene) if scene.chosen else ():
            rows.append(options.out, [row])
            made.append(row)
        missing += scene.missing
    return made, missing


def prepared(options: Options, console: Console, role: Role, logs: Path, date: str) -> Scene:
    folder = options.models[role]
    every = workloads(folder / "tokenizer.json", options.profile.sizes)
    servers = contestants(options.contestants, options.api_servers, options.replicas)
    site = Site(
        checkpoint=checkpoint.of_role(role, str(folder)),
        gpu=options.profile.gpu,
        dtype=options.profile.dtype,
        gpu_share=round(GPU_MEMORY / max(1, len(servers)), 3),
        quantization=options.quantization,
    )
    chosen = [every[name] for name in options.workloads if every[name].role == role]
    return Scene(options, console, site, chosen, logs, date)


def entered(scene: Scene, stack: ExitStack, chosen: Sequence[Contestant]) -> list[Entrant]:
    """Their servers, those that come up. On a GPU one starts after the other (two memory profiles on one
    device disturb each other), on a CPU side by side: most of that time one core compiles."""
    found = []
    for some in [[each] for each in chosen] if scene.site.gpu else [chosen]:
        names = ", ".join(each.name for each in some)
        with scene.console.status(f"starting {names} ({scene.role})"):
            begun = [(each, stack.enter_context(_started(scene, each))) for each in some]
            for contestant, server in begun:
                try:
                    found.append(Entrant(contestant, server.ready()))
                except processes.DidNotStart as error:
                    scene.left_out(contestant.name, error)
    return found


def _started(scene: Scene, contestant: Contestant) -> AbstractContextManager[processes.Started]:
    return processes.started(
        contestant.name,
        lambda port: contestant.command(scene.site, port),
        scene.site.environment,
        health=contestant.health,
        log=scene.logs / f"{contestant.name}-{scene.role}.log",
        seconds=scene.options.profile.start_seconds,
    )


def _rows(scene: Scene) -> Iterator[Row]:
    options = scene.options
    planned = plan.slots(options, scene.chosen)
    with Clients(options.profile.clients) as clients, ExitStack() as stack:
        truths, own = unserved.reference(scene)
        yield from own
        if _SERVED & set(options.modes):
            servers = contestants(options.contestants, options.api_servers, options.replicas)
            driver = Driver(scene, entered(scene, stack, servers), truths, clients)
            for slot in planned:
                if "closed" in options.modes:
                    yield from driver.closed(slot)
            for workload in scene.chosen:
                if "open" in options.modes:
                    yield from driver.opened(workload)
    yield from unserved.rows(scene, truths)
