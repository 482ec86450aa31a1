"""`qvl search`: fill an index, and ask it. Everything heavy loads in its command."""

from __future__ import annotations

from cyclopts import App

from qvl.engine.config import EngineConfig
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.options import ConfigFile, Source, flat
from qvl.engine.search.settings import AskConfig, Place, VectorConfig

for settings, heading in ((Place, "Index"), (VectorConfig, "Index"), (AskConfig, "Question")):
    flat(settings, heading)

search = App(name="search", help="Fill an index and ask it: recall by vectors, then rerank.")


@search.command
def add(
    source: Source,
    /,
    *,
    place: Place = Place(),  # noqa: B008 - frozen
    kept: VectorConfig = VectorConfig(),  # noqa: B008 - frozen
    instruction: str | None = None,
    job: JobConfig = JobConfig(),  # noqa: B008 - frozen
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """Put items into an index; what is there already is not embedded again, so a rerun goes on after a crash.

    Parameters
    ----------
    source
        JSON lines like {"id", "text", "image", "video", "metadata": {"year": 2024}}, or a folder of pictures,
        videos and texts (by the end of their names). To files, also those whose paths are in lines, the index
        refers.
    instruction
        What the vectors are for (default: the model's own).
    """
    del config
    from qvl.engine.search.commands import Order
    from qvl.engine.search.commands import add as fill

    return fill(Order(source=source, place=place, kept=kept, job=job, engine=engine, instruction=instruction))


@search.command
def drop(*id: str, place: Place = Place(), config: ConfigFile = None) -> int:  # noqa: B008 - frozen
    """Take items out of an index.

    Parameters
    ----------
    id
        As the lines had them, or as `ask` shows them; of a folder's files their paths in it.
    """
    del config
    from qvl.engine.search.commands import drop as remove

    return remove(id, place)


@search.command
def ask(
    text: str | None = None,
    /,
    *,
    image: str | None = None,
    video: str | None = None,
    place: Place = Place(),  # noqa: B008 - frozen
    asked: AskConfig = AskConfig(),  # noqa: B008 - frozen
    url: str | None = None,
    key: str | None = None,
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """Find the items of an index that fit a text, a picture, a video or a mixture.

    Parameters
    ----------
    text
        The question in words.
    image
        A picture to ask with: a file or a URL.
    video
        A video to ask with: a file or a URL.
    url
        The server whose index is asked, or, with --index, whose models answer.
    key
        API key for --url.
    """
    del config
    from qvl.engine.search.commands import ask as answer
    from qvl.engine.search.commands import question

    query = question(text, image, video)
    return answer(query, place, asked, url, key, engine)
