"""The tree that callers read is the one that is raised."""

from __future__ import annotations

import re

from qvl.engine import errors
from qvl.engine.errors import QvlError


def test_the_tree_names_every_error_with_its_status() -> None:
    told = dict(re.findall(r"^[ │├└─]+(\w+) +(\d{3}|)(?: |$)", errors.__doc__ or "", re.M))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, QvlError)]
    assert told == {kind.__name__: str(kind.status) if "status" in vars(kind) else "" for kind in kinds}
