"""Retrieval tasks in the shape of the `mteb` package: queries, corpus, relevant documents.

`named("text to image", 400)` draws one from the demo's world; any other name is asked of `mteb`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.pair import evaluate
from qvl.engine.demo.tasks import Item

GENERATED = ("text to image", "image to text", "page", "mixed", "video")
_DEAR = {"video": 8}
"""One clip costs as much as many pictures: so many times fewer are drawn."""


@dataclass(frozen=True)
class Task:
    """`queries` and `corpus` by id; `relevant` gives each query's documents their grade, absent is 0."""

    name: str
    queries: Mapping[str, Item]
    corpus: Mapping[str, Item]
    relevant: Mapping[str, Mapping[str, int]]

    def grades(self) -> npt.NDArray[np.float32]:
        """(queries, documents)."""
        columns = {each: place for place, each in enumerate(self.corpus)}
        grades = np.zeros((len(self.queries), len(columns)), np.float32)
        for row, query in enumerate(self.queries):
            for document, grade in self.relevant.get(query, {}).items():
                if document in columns:
                    grades[row, columns[document]] = grade
        return grades


def named(name: str, count: int) -> list[Task]:
    return [generated(name, count)] if name in GENERATED else from_mteb(name)


def generated(name: str, count: int) -> Task:
    """Held-out: seeds that training never drew from, no two candidates alike."""
    pairs = evaluate.examples(name, max(4, count // _DEAR.get(name, 1)))
    return Task(
        name=name,
        queries={f"q{i}": each.query for i, each in enumerate(pairs)},
        corpus={f"d{i}": each.document for i, each in enumerate(pairs)},
        relevant={f"q{i}": {f"d{i}": 1} for i in range(len(pairs))},
    )


def from_mteb(name: str) -> list[Task]:
    """One for each language and split that the task is evaluated on."""
    try:
        import mteb
    except ModuleNotFoundError:
        known = ", ".join(GENERATED)
        raise SystemExit(
            f"quality: {name!r} is none of {known}; for a task of MTEB: pip install mteb"
        ) from None
    try:
        task: Any = mteb.get_task(name)
    except KeyError as error:
        raise SystemExit(f"quality: {error.args[0]}") from None
    task.load_data()
    return converted(task)


def converted(task: Any) -> list[Task]:
    """A loaded retrieval task of `mteb`, whose older ones keep their data under other names until asked."""
    if not hasattr(task, "convert_v1_dataset_format_to_v2"):
        raise SystemExit(f"quality: {task.metadata.name} is not a retrieval task")
    task.convert_v1_dataset_format_to_v2(None)
    asked = _instruction(task.metadata.prompt)
    return [
        Task(
            name=" ".join(part for part in (task.metadata.name, subset, split) if part != "default"),
            queries=_items(data["queries"], lambda row: row.get("instruction") or asked),
            corpus=_items(data["corpus"], lambda _: None),
            relevant=data["relevant_docs"],
        )
        for subset, splits in task.dataset.items()
        for split, data in splits.items()
        if split in task.eval_splits
    ]


def _items(
    rows: Sequence[Mapping[str, Any]], instruction: Callable[[Mapping[str, Any]], str | None]
) -> dict[str, Item]:
    return {
        str(row["id"]): Item(
            text=" ".join(part for part in (row.get("title"), row.get("text")) if part).strip(),
            image=row["image"].convert("RGB") if row.get("image") is not None else None,
            instruction=instruction(row),
        )
        for row in rows
    }


def _instruction(prompt: str | Mapping[str, str] | None) -> str | None:
    return prompt.get("query") if isinstance(prompt, Mapping) else prompt
