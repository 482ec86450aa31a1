"""What runs without a server: the reference's answers, and the offline rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks import offline, plan, processes
from benchmarks.asks import narrowed, spread
from benchmarks.offline import Done, Job, Task
from benchmarks.rows import Row
from benchmarks.scene import Scene, Truths
from benchmarks.truth import Truth

REFERENCE = "reference"
_BATCH = {True: 16, False: 1}
"""Items that the Hugging Face code takes at once, by whether there is a GPU."""
_SECONDS = 420.0
"""For one process to load, answer and end."""
_WARM = 2
_WARM_START = 30_000_000


def reference(scene: Scene) -> tuple[Truths, list[Row]]:
    """Right answers for all that the rows will check; and its offline rows when it is a contestant.

    Raises SystemExit when there are none: every row would be void.
    """
    batch = _BATCH[scene.site.gpu]
    keys: list[tuple[str, int]] = []
    checks: list[Task] = []
    for workload, start in plan.checked(scene.options, scene.chosen):
        numbers = range(start, start + plan.CHECKED_REQUESTS)
        places = spread(workload.items, plan.CHECKED_ITEMS)
        keys += [(workload.name, number) for number in numbers]
        asks = [narrowed(workload.make(number), places) for number in numbers]
        checks.append(Task(workload.name, asks, batch=batch))
    kept = tasks(scene, batch) if REFERENCE in scene.options.contestants else []
    job = Job(REFERENCE, replace(scene.site, quantization=None), [*checks, *kept])
    try:
        with scene.console.status(f"reference ({scene.role}): {len(keys)} requests to check"):
            done = offline.run(job, scene.logs, _SECONDS)
    except processes.DidNotStart as error:
        scene.left_out(REFERENCE, error)
        raise SystemExit("benchmarks: nothing can be checked without the reference's answers") from error
    truths = dict(_truths(scene, keys, done[: len(checks)]))
    return truths, [_row(scene, REFERENCE, each, truths) for each in done[len(checks) :]]


def rows(scene: Scene, truths: Truths) -> Iterator[Row]:
    """The offline rows of the engines."""
    wanted = tasks(scene, 1)
    for name in scene.options.contestants if wanted else ():
        if name == REFERENCE:
            continue
        try:
            with scene.console.status(f"offline {name} ({scene.role})"):
                done = offline.run(Job(name, scene.site, wanted), scene.logs, _SECONDS)
        except processes.DidNotStart as error:
            scene.left_out(f"offline {name}", error)
            continue
        for each in done:
            yield _row(scene, name, each, truths)


def tasks(scene: Scene, batch: int) -> list[Task]:
    """The offline mode's: none when it is not wanted."""
    if "offline" not in scene.options.modes:
        return []
    made = []
    for workload in scene.chosen:
        if count := scene.options.profile.loads[workload.name].offline:
            asks = [workload.make(plan.OFFLINE_START + number) for number in range(count)]
            warm = [workload.make(_WARM_START + number) for number in range(min(_WARM, count))]
            made.append(Task(workload.name, asks, warm, batch))
    return made


def _truths(
    scene: Scene, keys: Sequence[tuple[str, int]], done: Sequence[Done]
) -> Iterator[tuple[tuple[str, int], Truth]]:
    counts = {workload.name: workload.items for workload in scene.chosen}
    answers = [(answer, each, place) for each in done for place, answer in enumerate(each.answers)]
    for key, (answer, each, place) in zip(keys, answers, strict=True):
        size = len(answer)
        tokens = tuple(each.tokens[place * size : (place + 1) * size])
        yield key, Truth(spread(counts[key[0]], plan.CHECKED_ITEMS), answer, tokens)


def _row(scene: Scene, contestant: str, done: Done, truths: Truths) -> Row:
    known = [truths[done.name, plan.OFFLINE_START + place] for place in range(plan.CHECKED_REQUESTS)]
    return scene.row(
        done.name,
        "offline",
        contestant,
        items_per_s=done.items / done.seconds,
        answers=done.answers,
        known=known,
        gpu_busy=done.gpu_busy,
        peak_mem_gb=done.memory_gb,
        requests=len(done.answers),
        seconds=done.seconds,
    )
