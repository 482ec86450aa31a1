"""The process that counts and cuts PDFs: `python -m qvl.engine.jobs.cutter MOST`. `pdf.py` asks it.

PDFium is a large C library, and the files are anybody's: one that crashes it, hangs it or fills its memory
takes this process with it and nothing else. No more is imported here than that needs.

A question is a line of JSON, `[path, page]`; page 0: how many there are. The answer is a line of JSON,
`{"count"}`, `{"size"}` and so many bytes, or `{"wrong"}`.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from typing import Any

from qvl.engine.machine import data_bytes

MEMORY = 1 << 30
"""Bytes that a file may take."""
SECONDS = 10
"""For one question; a good file takes milliseconds."""


def answer(path: str, page: int, most: int) -> tuple[dict[str, Any], bytes]:
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(path) as document:
            count = len(document)  # as it says
            if not page:
                document[count - 1].close()
                return {"count": count}, b""
            if page > count:
                wrong = f"it has {count:,} pages, no page {page:,}; name one from #page=1 to #page={count}"
                return {"wrong": wrong, "code": "no_such_page"}, b""
            data = _cut(document, page)
    except (RuntimeError, OSError, ValueError, IndexError, MemoryError):
        # PDFium's are RuntimeErrors; what they say may be of a file before.
        return {"wrong": "the PDF is truncated, corrupt or locked"}, b""
    if len(data) > most:
        return {"wrong": f"page {page:,} alone has {len(data):,} bytes; at most {most:,}"}, b""
    return {"size": len(data)}, data


def _cut(document: Any, page: int) -> bytes:
    import pypdfium2

    if document.get_formtype():  # its fields would stay behind: what they show becomes a part of the page
        document.init_forms()
        document[page - 1].flatten()
    with pypdfium2.PdfDocument.new() as alone:
        alone.import_pages(document, [page - 1])
        file = io.BytesIO()
        alone.save(file)
        return file.getvalue()


def main(most: int) -> None:
    """Until nobody asks any more."""
    import pypdfium2  # noqa: F401 - before its memory is counted

    # Ctrl-C reaches the whole group, and the job commits first. The alarm ends what hangs in the library too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = data_bytes() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for line in sys.stdin.buffer:
        path, page = json.loads(line)
        signal.alarm(SECONDS)
        head, data = answer(path, page, most)
        signal.alarm(0)
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
