"""PDFs written by hand."""

from __future__ import annotations

TILES = (
    "<</Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep 0.001/YStep 0.001"
    "/Resources<<>>/Length 13>>stream\n0 0 .5 .5 re f\nendstream"
)


def of(objects: dict[int, str]) -> bytes:
    """A file of these objects, the first of which is its catalog."""
    written = bytearray(b"%PDF-1.7\n")
    rows = ["0000000000 65535 f "]
    for number in range(1, max(objects) + 1):
        rows.append(f"{len(written):010d} 00000 n ")
        written += f"{number} 0 obj\n{objects[number]}\nendobj\n".encode()
    start, size = len(written), len(rows)
    written += "\n".join(["xref", f"0 {size}", *rows, f"trailer\n<</Size {size}/Root 1 0 R>>\n"]).encode()
    return bytes(written) + b"startxref\n%d\n%%%%EOF\n" % start


def of_one_page(content: str, *, page: str = "", catalog: str = "", **more: str) -> bytes:
    """`more`: objects from number 5 on, by any name."""
    return of({
        1: f"<</Type/Catalog/Pages 2 0 R{catalog}>>",
        2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R{page}>>",
        4: f"<</Length {len(content)}>>stream\n{content}\nendstream",
        **dict(enumerate(more.values(), 5)),
    })  # fmt: skip


def endless(seed: int = 0) -> bytes:
    """A page that is drawn for minutes: tiles a thousandth of a point apart. Another for each seed."""
    resources = "/Resources<</Pattern<</P 5 0 R>>>>"
    content = f"/Pattern cs /P scn 0 0 200 100 re f % {seed}"
    return of_one_page(content, page=resources, tiles=TILES)
