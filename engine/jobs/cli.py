"""`qvl batch`. Everything heavy loads in its command."""

from __future__ import annotations

from qvl.engine.config import EngineConfig
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.options import ConfigFile, Out, Source


def batch(
    source: Source,
    /,
    *,
    out: Out,
    job: JobConfig = JobConfig(),  # noqa: B008 - frozen
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """Answer a file of requests as OpenAI's batch API takes it; a rerun after a crash goes on where it was.

    Parameters
    ----------
    source
        JSON lines: {"custom_id", "method": "POST", "url": "/v1/embeddings", "body"}; any POST route.
    out
        OUT.jsonl: {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}. Bad lines
        are in OUT.jsonl.errors.jsonl with "custom_id" and "response", as in OpenAI's error file.
    """
    del config
    from qvl.engine.jobs.commands import batch_file

    return batch_file(source, out, job, engine)
