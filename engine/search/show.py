"""An answer of `/v1/search` for people: a table, or the JSON as it is."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN = 60
"""Characters of a text or link."""
PIPE_WIDTH = 160


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
        return
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    table = Table(box=None, header_style="bold")
    for name, justify in (("rank", "right"), ("id", "left"), ("score", "right"), ("cosine", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "id")
    table.add_column("item")
    table.add_column("metadata")
    for rank, found in enumerate(answer["results"], 1):
        table.add_row(
            str(rank), escape(found["id"]), _score(found), f"{found['similarity']:.3f}", *_told(found)
        )
    console.print(table)
    console.print(escape(_summary(answer)), style="dim", highlight=False)


def _score(found: dict[str, Any]) -> str:
    return f"{found['relevance_score']:.3f}" if "relevance_score" in found else "-"


def _told(found: dict[str, Any]) -> tuple[str, str]:
    document = found.get("document", {})
    parts = [document.get("text", ""), *document.get("image", []), *document.get("video", [])]
    item = " ".join(_short(part) for part in parts if part)
    fields = ", ".join(f"{key}={value}" for key, value in found["metadata"].items())
    return escape(item), escape(fields)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _summary(answer: dict[str, Any]) -> str:
    by = f"{answer['model']}, then {answer['rerank_model']}" if answer["reranked"] else answer["model"]
    note = f"; {answer['note']}" if "note" in answer else ""
    return f"{len(answer['results'])} of {answer['candidates']} recalled by {by}{note}"
