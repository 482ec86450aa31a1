"""What other APIs call a task, a prompt name or an input type, as an instruction of this model.

| asked for                                                              | instruction              |
|------------------------------------------------------------------------|--------------------------|
| `query`, `search_query`, `retrieval.query`                             | `QUERY`                  |
| `document`, `passage`, `search_document`, `retrieval.passage`, `image` | none: the model's default |
| `text`, Azure's for neither                                            | none                     |
| `code.query` / `code.passage`                                          | `CODE` / none            |
| `text-matching`                                                        | `MATCH`                  |
| `classification`                                                       | `CLASSIFY`               |
| `clustering`, `separation`                                             | `CLUSTER`                |

An `instruction` in the same request wins. Of several the first counts, but a query is not also a document.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from qvl.engine.dialects.fields import agreed

QUERY = "Retrieve images or text relevant to the user's query."
CODE = "Retrieve code relevant to the user's query."
MATCH = "Retrieve semantically similar text."
CLASSIFY = "Classify the user's input."
CLUSTER = "Identify the topic or theme of the user's input."

Task: TypeAlias = Literal[
    "query",
    "search_query",
    "retrieval.query",
    "document",
    "passage",
    "search_document",
    "retrieval.passage",
    "image",
    "text",
    "code.query",
    "code.passage",
    "text-matching",
    "classification",
    "clustering",
    "separation",
]

INSTRUCTIONS: dict[Task, str | None] = {
    "query": QUERY,
    "search_query": QUERY,
    "retrieval.query": QUERY,
    "document": None,
    "passage": None,
    "search_document": None,
    "retrieval.passage": None,
    "image": None,
    "text": None,
    "code.query": CODE,
    "code.passage": None,
    "text-matching": MATCH,
    "classification": CLASSIFY,
    "clustering": CLUSTER,
    "separation": CLUSTER,
}


def instruction(explicit: str | None, **tasks: Task | None) -> str | None:
    """The caller's own instruction, else that of the first task named, else the model's default."""
    if explicit is not None:
        return explicit
    agreed({field: _of_query(task) for field, task in tasks.items()})
    return next((INSTRUCTIONS[task] for task in tasks.values() if task is not None), None)


def documents(**tasks: Task | None) -> str | None:
    """The field that says that the items are no queries."""
    return next((field for field, task in tasks.items() if _of_query(task) is False), None)


def _of_query(task: Task | None) -> bool | None:
    """Which side of a search it names, if it names one."""
    if task is None or not task.endswith(("query", "document", "passage")):
        return None
    return task.endswith("query")
