"""How a file job runs, apart from what it computes. Its fields are the CLI's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qvl.engine.config import check_numbers
from qvl.engine.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """A job over a file of lines."""

    url: str | None = None
    """Ask this running server instead of starting an engine here."""
    key: str | None = None
    """API key for --url."""
    on_error: Literal["skip", "fail"] = "skip"
    """skip: a bad line is left out and written beside OUT, to `out.parquet.errors.jsonl` for one of that name
    (search add: `IN.*.errors.jsonl` in the index's folder; --ray: `OUT/_part-*.errors.jsonl`); the exit code
    is 1 if every line was bad. fail: the first one stops the job. To try bad lines again, run `search add`
    again; after another job, give the lines that the errors file names (`line`, from 1) as a new IN."""
    overwrite: bool = False
    """Discard OUT (search: the index) and any unfinished run, and start from scratch; without it an
    interrupted job goes on."""
    batch: int = 64
    """Lines of one request (rerank, batch: always 1)."""
    in_flight: int = 8
    """Requests under way at once."""

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def again(self) -> str:
        """What goes on where this command has stopped."""
        return "the same command without --overwrite" if self.overwrite else "the same command"


class JobError(ConfigError):
    """A job that cannot start or go on; the message is one line that says what to do."""
