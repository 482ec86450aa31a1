"""The servers that are compared, each set up as its own documentation says."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contestants.base import Contestant, Site
from benchmarks.contestants.qvl import Qvl
from benchmarks.contestants.stock import Stock

__all__ = ["NAMES", "Contestant", "Site", "contestants"]

NAMES = ("qvl", "vllm-default", "vllm-tuned", "reference")
"""`reference`, the Hugging Face code, has no server: it answers in offline mode only."""


def contestants(
    names: Sequence[str], api_servers: Sequence[int], replicas: Sequence[int]
) -> list[Contestant]:
    """The servers among `names`; `vllm-tuned` once for each count of API servers, `qvl` of replicas."""
    found: list[Contestant] = []
    if "qvl" in names:
        found += [Qvl(count) for count in replicas]
    if "vllm-default" in names:
        found.append(Stock("vllm-default", tuned=False))
    if "vllm-tuned" in names:
        for count in api_servers:
            name = "vllm-tuned" if count == 1 else f"vllm-tuned-{count}-api"
            found.append(Stock(name, tuned=True, api_servers=count))
    return found
