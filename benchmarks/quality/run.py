"""The grid: the reference once, then an engine for each served row, then what is stored of one's vectors."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from rich.console import Console

from benchmarks import rows as runs
from benchmarks.asks import Role
from benchmarks.quality import answers, metrics, stored
from benchmarks.quality.answers import Answers
from benchmarks.quality.bench import Bench, bench, narrowed
from benchmarks.quality.metrics import Scores
from benchmarks.quality.rows import Row, under
from benchmarks.quality.tasks import Task
from benchmarks.quality.variants import PLAIN, SERVED, STORED, Served
from qvl.engine import EngineConfig
from qvl.engine.errors import ConfigError, QvlError
from qvl.engine.quantize.command import quantize


@dataclass(frozen=True, kw_only=True)
class Options:
    models: Mapping[Role, Path]
    tasks: Sequence[Task]
    rankings: int
    """Queries of each task that are reranked."""
    variants: Sequence[Served] = SERVED
    gpu: bool = False
    """Where it runs; the rows say so."""


class Grid:
    """After `rows`, `failures` says what was under its floor or did not run."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.failures: list[str] = []
        self._date = runs.now()

    def rows(self) -> Iterator[list[Row]]:
        """Of one shortcut and role at a time, as soon as they are made."""
        with tempfile.TemporaryDirectory(prefix="qvl-quality-") as folder:
            for variant in self.options.variants:
                for group in self._of(variant, Path(folder)):
                    if why := under(group):
                        self.failures.append(f"{group[0].role}, {group[0].variant}: {why}")
                    yield group

    @cached_property
    def benches(self) -> list[Bench]:
        models = {role: answers.reference_model(folder) for role, folder in self.options.models.items()}
        made = []
        for task in self.options.tasks:
            with self.console.status(f"{task.name}: the reference"):
                made.append(bench(task, models, self.options.rankings))
        return made

    def _of(self, variant: Served, folder: Path) -> Iterator[list[Row]]:
        roles = [role for role in self.options.models if role in variant.roles]
        if not roles:
            return
        try:
            found = self._served(variant, roles, folder)
        except (ConfigError, QvlError) as error:
            self.failures.append(f"{variant.name}: {error}")
            return
        for role in roles:
            yield [self._own(role, variant.name, each, found[each.task.name]) for each in self.benches]
        if variant.name == PLAIN and "embedder" in roles:
            yield from self._stored(found)

    def _served(self, variant: Served, roles: Sequence[Role], folder: Path) -> dict[str, Answers]:
        chosen: dict[str, str] = {role: str(self.options.models[role]) for role in roles}
        if variant.scheme:
            for role in roles:
                out = folder / f"{variant.scheme}-{variant.vision}-{role}"
                with self.console.status(f"{variant.name}: quantising the {role}"):
                    quantize(
                        str(self.options.models[role]),
                        out,
                        variant.scheme,
                        role=role,
                        vision=variant.vision,
                    )
                chosen[role] = str(out)
        asked = {each.task.name: narrowed(each.asked, roles, half=variant.half) for each in self.benches}
        # To compile a variant takes longer than its questions.
        config = EngineConfig(**{"dtype": "bfloat16", "enforce_eager": True, **variant.engine, **chosen})
        answers.leave_the_gpu()
        with self.console.status(f"{variant.name}: the engine"):
            return asyncio.run(answers.served(config, asked))

    def _own(self, role: Role, name: str, bench: Bench, got: Answers) -> Row:
        """What an engine answered to one task."""
        true = bench.truth
        if role == "reranker":
            scores, wanted = _sigmoid(got.logits), _sigmoid(true.logits)
            row = self._row(role, name, bench.task, scores, wanted, bench.ranked)
            low, high = np.quantile(scores, (0.02, 0.98))
            error = float(np.abs(scores - wanted).max())
            return replace(row, score_error=error, score_spread=(float(low), float(high)))
        scores, wanted = got.queries @ got.documents.T, true.queries @ true.documents.T
        row = self._row(role, name, bench.task, scores, wanted, bench.grades)
        sides = (got.queries, true.queries), (got.documents, true.documents)
        return replace(row, least_cosine=min(metrics.least_cosine(*side) for side in sides))

    def _stored(self, found: Mapping[str, Answers]) -> Iterator[list[Row]]:
        """What is left of an engine's vectors in an index."""
        for kept in STORED:
            group = []
            for each in self.benches:
                got, true = found[each.task.name], each.truth
                scores = stored.scores(got.queries, got.documents, kept)
                wanted = true.queries @ true.documents.T
                group.append(self._row("embedder", kept.name, each.task, scores, wanted, each.grades))
            yield group

    def _row(self, role: Role, name: str, task: Task, scores: Scores, wanted: Scores, grades: Scores) -> Row:
        return Row(
            hardware=runs.hardware(self.options.gpu),
            versions=runs.versions(),
            commit=runs.commit(),
            date=self._date,
            model=self.options.models[role].name,
            role=role,
            variant=name,
            task=task.name,
            queries=scores.shape[0],
            documents=scores.shape[1],
            ndcg=metrics.ndcg(scores, grades),
            reference_ndcg=metrics.ndcg(wanted, grades),
            recall_1=metrics.recall(scores, grades, 1),
            recall_10=metrics.recall(scores, grades, 10),
            correlation=metrics.correlation(scores, wanted),
        )


def _sigmoid(logits: Scores) -> Scores:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)
