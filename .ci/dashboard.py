"""The other half of `make manifests`: `grafana.json` as Grafana 11.6's own models read it.

They drop a key that they do not know and take any value. So nothing may be missing when they write the
dashboard out again, and each value is held to the type that they declare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

PAGE = Path(__file__).parent.parent / "ray_serve" / "grafana.json"


def lost(before: Any, after: Any, where: str) -> Iterator[str]:
    """What is not there any more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from lost(old, new, f"{where}[{place}]")
    elif before != after:
        yield f"{where} is {before!r}, which Grafana does not know there"


def wrong(read: Any, where: str) -> Iterator[str]:
    """What is not of its type."""
    if isinstance(read, list):
        for place, each in enumerate(read):
            yield from wrong(each, f"{where}[{place}]")
    if isinstance(read, Panel) and panelcfg_config(read.type_val) is None:
        yield f"{where}.type is {read.type_val!r}, no panel of Grafana's"
    if type(read).__module__.startswith("grafana_foundation_sdk."):
        for name, declared in get_type_hints(type(read)).items():
            value = getattr(read, name)
            if not fits(value, declared):
                yield f"{where}.{name} is {value!r}, not {declared}"
            yield from wrong(value, f"{where}.{name}")


def fits(value: Any, declared: Any) -> bool:
    inner = get_args(declared)
    match get_origin(declared):
        case origin if origin is Union:
            return any(fits(value, each) for each in inner)
        case origin if origin is Literal:
            return value in inner
        case origin if origin is list:
            return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
        case origin if origin is dict:
            return isinstance(value, dict)
    if issubclass(declared, Enum):
        return value in [each.value for each in declared]
    return isinstance(value, (int, float) if declared is float else declared)


register_default_plugins()
found = json.loads(PAGE.read_text())
read = Dashboard.from_json(json.loads(PAGE.read_text()))
faults = [*lost(found, json.loads(JSONEncoder().encode(read)), "dashboard"), *wrong(read, "dashboard")]
sys.stdout.write("\n".join(faults or [f"{PAGE.name}: Grafana reads all of it"]) + "\n")
sys.exit(bool(faults))
