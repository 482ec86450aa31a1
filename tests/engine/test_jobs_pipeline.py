"""Which lines of a batch are asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from qvl.engine.errors import MEDIA_NOT_BEGUN, Unprocessable
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.pipeline import answer
from qvl.engine.jobs.tasks import Parsed


class Slow:
    """A server for which two lines of a batch take too long."""

    most = None

    async def answer(self, batch: Sequence[Parsed]) -> list[Any]:
        values = [line.value for line in batch]
        slow = [value for value in values if value < 2][:2]
        late = MEDIA_NOT_BEGUN if len(slow) == 2 else ""
        return [
            Unprocessable("", code="decode_timeout")
            if value in slow
            else Unprocessable("", code=late)
            if late
            else value
            for value in values
        ]


def test_what_was_not_begun_for_others_is_asked_alone() -> None:
    lines = [Line(i, b"%d" % i, 0) for i in range(5)]
    outcomes = asyncio.run(answer(Slow(), lines))
    assert [getattr(each, "code", each) for each in outcomes] == ["decode_timeout"] * 2 + [2, 3, 4]
