"""`open_index(where)`: the store that a path or a URL means."""

from __future__ import annotations

from pathlib import Path

from qvl.engine.errors import ConfigError
from qvl.engine.search.index import Index

EXTRA = {"usearch", "numkong", "qdrant_client"}


def open_index(where: str, *, key: str | None = None, make: bool = False, writable: bool = False) -> Index:
    """A folder, or `http(s)://HOST:PORT/COLLECTION` of Qdrant.

    A folder's index must be there unless it is to be made; only one process may hold it `writable`. Raises
    ConfigError, one line, for what cannot be used, and Unavailable for what cannot be yet: nobody answers.
    """
    try:
        if where.startswith(("http://", "https://")):
            from qvl.engine.search.qdrant import Qdrant

            return Qdrant.at(where, key)
        from qvl.engine.search.embedded import Embedded

        return Embedded(Path(where), make=make, writable=writable)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise ConfigError("an index needs the extra `search`: pip install 'qvl[search]'") from None
