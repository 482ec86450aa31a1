"""Rows as SVG bar charts, for the README: one file for each model and machine.

Plain SVG text: a chart of a few bars needs no plotting library, and the files diff well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from benchmarks.compare import OURS, Group, Line, groups
from benchmarks.rows import Row

COLOURS = ("#8a8f98", "#5b8def", "#b78bd8", "#d0a35c")
OWN_COLOUR = "#e4572e"
_WIDTH, _LEFT, _RIGHT = 860, 220, 110
_BAR, _GAP, _TOP, _LEGEND = 14, 16, 44, 30
_FONT = "font-family='system-ui, sans-serif' fill='#808690'"


def draw(rows: Iterable[Row], folder: Path) -> list[Path]:
    """Write the figures to `folder`; rows that are void have no bar."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for group in groups(rows):
        lines = [line for line in group.lines if line.own.mode in ("closed", "offline") and bars(line)]
        if lines:
            path = folder / f"{re.sub(r'[^a-z0-9]+', '-', group.title.lower()).strip('-')}.svg"
            path.write_text(svg(group, lines), encoding="utf-8")
            drawn.append(path)
    return drawn


def bars(line: Line) -> list[tuple[str, Row, float]]:
    """Contestant, row, and its items per second over ours; ours first. Empty when ours does not count."""
    if line.own.void or not line.own.items_per_s:
        return []
    others = [(name, row) for name, row in line.others.items() if not row.void]
    found = [(OURS, line.own), *others]
    return [(name, row, row.items_per_s / line.own.items_per_s) for name, row in found]


def svg(group: Group, lines: Sequence[Line]) -> str:
    """Bars are relative to ours in each workload, labelled with items per second."""
    longest = max(share for line in lines for _, _, share in bars(line))
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    parts: list[str] = []
    top = _TOP + _LEGEND
    for line in lines:
        parts += _block(line, top, scale, group.names)
        top += len(bars(line)) * _BAR + _GAP
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {top}' role='img' "
        f"aria-label='{escape(group.title, quote=True)}'>"
    )
    title = f"<text x='8' y='24' {_FONT} font-size='16'>{escape(group.title)}: items per second</text>"
    return "\n".join([head, title, *_legend(group.names), *parts, "</svg>\n"])


def _block(line: Line, top: float, scale: float, names: Sequence[str]) -> Iterator[str]:
    found = bars(line)
    middle = top + len(found) * _BAR / 2 + 4
    mode = "" if line.own.mode == "closed" else f" ({line.own.mode})"
    yield (
        f"<text x='{_LEFT - 8}' y='{middle:.0f}' {_FONT} font-size='12' text-anchor='end'>"
        f"{escape(line.title + mode)}</text>"
    )
    for place, (name, row, share) in enumerate(found):
        y, width, colour = top + place * _BAR, max(1.0, share * scale), _colour(name, names)
        yield f"<rect x='{_LEFT}' y='{y}' width='{width:.1f}' height='{_BAR - 3}' fill='{colour}'/>"
        yield (
            f"<text x='{_LEFT + width + 5:.1f}' y='{y + _BAR - 5}' {_FONT} font-size='10'>"
            f"{row.items_per_s:,.4g}/s</text>"
        )


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = _LEFT
    for name in (OURS, *names):
        yield f"<rect x='{x}' y='38' width='10' height='10' fill='{_colour(name, names)}'/>"
        yield f"<text x='{x + 15}' y='47' {_FONT} font-size='12'>{escape(name)}</text>"
        x += 24 + 8 * len(name)


def _colour(name: str, names: Sequence[str]) -> str:
    return OWN_COLOUR if name == OURS else COLOURS[list(names).index(name) % len(COLOURS)]
