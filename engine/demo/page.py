"""The demo's answers as one HTML file with the pictures in it: nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from qvl.engine.demo.corpus import Asked, Entry
from qvl.engine.demo.search import RECALLED, Found, Hit, Share

SHOWN = 4
WIDEST = 256
"""Pixels a side that a picture has on the page."""


def page(about: str, entries: Sequence[Entry], found: Sequence[Found], shares: Sequence[Share]) -> str:
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        about=escape(about),
        shares="\n".join(_share(each) for each in shares),
        questions="\n".join(_question(entries, each) for each in found),
        entries=len(entries),
        recalled=RECALLED,
    )


def _share(share: Share) -> str:
    cells = (share.questions, share.before, share.after)
    return f"<tr><td>{escape(share.kind)}</td>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"


def _question(entries: Sequence[Entry], found: Found) -> str:
    stages = _stage(entries, found, found.recalled, "By vectors", "cosine")
    if found.asked.picture is None:
        stages += _stage(entries, found, found.ranked, "After rerank", "yes")
    return f'<section>\n{_header(found.asked)}<div class="stages">{stages}</div>\n</section>'


def _header(asked: Asked) -> str:
    picture = _image(asked.picture, "asked", "the question's picture") if asked.picture else ""
    return (
        f'<header class="ask">{picture}<div><h2>{escape(asked.title)}</h2>'
        f'<div class="told">{escape(asked.instruction)}</div></div></header>\n'
    )


def _stage(entries: Sequence[Entry], found: Found, hits: Sequence[Hit], name: str, score: str) -> str:
    rows = "\n".join(_row(entries, found, hit, rank, score) for rank, hit in enumerate(hits[:SHOWN], 1))
    kind = "first" if score == "cosine" else "second"
    return f'<div class="{kind}"><h3>{name} <span>{score}</span></h3>\n<ol>\n{rows}\n</ol></div>'


def _row(entries: Sequence[Entry], found: Found, hit: Hit, rank: int, score: str) -> str:
    entry, value = entries[hit.entry], hit.cosine if score == "cosine" else hit.score
    before = found.place(hit) + 1
    moved = f'<span class="moved">was {before}</span>' if before > rank else ""
    right = ' class="right"' if hit.entry == found.asked.answer else ""
    return (
        f'<li{right}><span class="rank">{rank}</span>'
        f'<span class="shot">{_image(entry.picture, entry.kind, entry.title)}</span>'
        f'<div><div class="what">{escape(entry.title)}</div><div class="score">'
        f'<span class="bar"><i style="width:{100 * min(1.0, max(0.0, value)):.1f}%"></i></span>'
        f"{value:.3f} {moved}</div></div></li>"
    )


def _image(picture: Image.Image, kind: str, said: str) -> str:
    small = picture.copy()
    small.thumbnail((WIDEST, WIDEST))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(said)}" src="data:image/jpeg;base64,{data}">'
