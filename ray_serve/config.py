"""Every setting of a cluster, its default and its meaning; a replica's own are in `qvl.engine.config`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_type_hints

import msgspec

from qvl.engine.config import PORTS, ServerConfig, check_numbers
from qvl.engine.errors import ConfigError
from qvl.engine.shares import divided
from qvl.ray_serve import haproxy

Layout: TypeAlias = Literal["together", "separate"]
Pool: TypeAlias = Literal["both", "embedder", "reranker"]

PREFIXES: dict[Pool, str] = {"both": "/", "embedder": haproxy.EMBEDDERS, "reranker": haproxy.RERANKERS}
"""Where each pool's application is; HAProxy chooses by them."""

_MAY_BE_0 = (
    "max_replicas",
    "replica_gpus",
    "replica_cpus",
    "split_tokens",
    "upscale_seconds",
    "downscale_seconds",
)
"""Of a pool's numbers."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many replicas a pool has, and what each takes of its node."""

    min_replicas: int | None = None
    """Replicas that run even without load (default: --replicas). New ones take minutes to load a model: keep
    enough for a sudden burst."""
    max_replicas: int = 0
    """Most replicas under load (0: no more than are always there)."""
    replica_gpus: float | None = None
    """GPUs of one replica; 0.5 puts two on a card (default: --tensor-parallel where there are GPUs)."""
    replica_cpus: float = 1.0
    """CPU cores that Ray reserves for one replica."""
    replica_tokens: int = 200_000
    """Estimated tokens, visual ones included, that a replica should have in progress; above it: scale up."""
    split_tokens: int = 100_000
    """Estimated tokens of a rerank's documents above which they are divided among replicas (0: never)."""
    upscale_seconds: float = 10.0
    """How long the load must last before replicas are added."""
    downscale_seconds: float = 300.0
    """How long replicas must be idle before they are drained and removed."""

    def __post_init__(self) -> None:
        check_numbers(self, zero=_MAY_BE_0)
        gpus = self.replica_gpus or 0
        if gpus > 1 and gpus != int(gpus):
            raise ConfigError(f"--replica-gpus must be a share of one GPU or a whole number, got {gpus:g}")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where replicas run and how requests reach them."""

    ray_address: str | None = None
    """Ray cluster to join; auto: the one on this machine (default: $RAY_ADDRESS, else a new one here)."""
    layout: Layout = "together"
    """Both models in each replica, or separate pools, so that rerank bursts don't starve embeds."""
    drain_window: float = 3.0
    """Seconds that a leaving replica stays reachable, for the proxies to hear that it leaves."""
    stats_host: str = "127.0.0.1"
    """Address on each node of HAProxy's statistics page and metrics (--stats-port, --metrics-port); both are
    open to who reaches it."""
    stats_port: int = 8404
    """Port of HAProxy's statistics page."""
    metrics_port: int = 9101
    """Port of HAProxy's Prometheus metrics."""
    replicas: Replicas = field(default_factory=Replicas)

    def __post_init__(self) -> None:
        check_numbers(self, zero=("drain_window",), most={"stats_port": PORTS, "metrics_port": PORTS})


@dataclass(frozen=True, kw_only=True)
class BulkConfig:
    """A corpus over a Ray cluster (with --ray)."""

    ray_address: str | None = None
    """Ray cluster to join; auto: the one on this machine (default: $RAY_ADDRESS, else a new one here)."""
    ray_workers: int = 0
    """Engines side by side (0: as many as the cluster's GPUs carry, or one)."""
    worker_gpus: float | None = None
    """GPUs of one worker (default: --tensor-parallel where there are GPUs; with --url none)."""
    worker_cpus: float = 1.0
    """CPU cores that Ray reserves for one worker."""
    block: int = 4096
    """Items of a block, which is one output file, and what a lost worker costs at most."""

    def __post_init__(self) -> None:
        check_numbers(self, zero=("ray_workers", "worker_gpus", "worker_cpus"))


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """A whole deployment."""

    server: ServerConfig
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    rerankers: Replicas | None = None
    """The reranker pool's own numbers in the separate layout (None: those of the embedders)."""

    def __post_init__(self) -> None:
        if self.server.tls_cert:
            raise ConfigError("Ray Serve's replicas speak no TLS: put a proxy that does in front of --port")
        engine = self.server.engine
        for given in (self.cluster.replicas, self.rerankers or self.cluster.replicas):
            replicas = self._counted(given)
            gpus, split = replicas.replica_gpus, engine.tensor_parallel
            if gpus and gpus != split and (split > 1 or gpus > 1):
                raise ConfigError(f"--replica-gpus is {gpus:g}, but --tensor-parallel says {split}")

    def require_both(self) -> None:
        """Separate pools cannot be told apart by what the checkpoints turn out to be."""
        if not (self.server.engine.embedder and self.server.engine.reranker):
            raise ConfigError("separate pools need both models named: --embedder M --reranker M")

    def of(self, pool: Pool) -> tuple[ServerConfig, Replicas]:
        """What one pool's replicas run, and how many there are: both numbers are given."""
        engine = self.server.engine
        replicas = self.cluster.replicas
        if pool != "both" and self.server.index:
            raise ConfigError(
                "/v1/search needs both models in a replica: index goes with layout together only"
            )
        if pool == "embedder":
            engine = replace(engine, reranker=None, models=())
        elif pool == "reranker":
            engine = replace(engine, embedder=None, models=())
            replicas = self.rerankers or replicas
        engine = divided(engine, replicas.replica_gpus or 1)
        return replace(self.server, engine=engine), self._counted(replicas)

    def most(self, pool: Pool) -> int:
        """Replicas that there may be of this pool and of the one beside it."""
        own = self.cluster.replicas
        pools = (own,) if pool == "both" else (own, self.rerankers or own)
        return sum(self._counted(each).max_replicas for each in pools)

    def _counted(self, given: Replicas) -> Replicas:
        least = given.min_replicas or self.server.replicas
        most = given.max_replicas or least
        if most < least:
            raise ConfigError(
                f"--max-replicas is {most}, below the {least} that are always there: "
                "raise it, or lower --min-replicas (without that: --replicas)"
            )
        return replace(given, min_replicas=least, max_replicas=most)


def load(arguments: Mapping[str, Any]) -> DeployConfig:
    """From the flat keys of `serve run ... key=value` or a YAML file: the options' names, `-` or `_`.

    `rerankers` is a mapping of its own. Raises ConfigError, naming the near miss of an unknown key.
    """
    given = {key.replace("-", "_"): value for key, value in arguments.items()}
    own = given.pop("rerankers", None)
    config = _read(DeployConfig, given)
    return config if own is None else replace(config, rerankers=_read(Replicas, own))


def _read(cls: type[T], given: Mapping[str, Any]) -> T:
    known = set[str]()
    nested = _nested(cls, given, known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ConfigError(f"unknown setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    try:
        return msgspec.convert(nested, cls, strict=False)
    except msgspec.ValidationError as error:
        told, _, path = str(error).partition(" - at `$.")
        raise ConfigError(f"{path.rstrip('`').rpartition('.')[2]}: {told}") from None


def _nested(cls: type[Any], given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The flat keys in the shape of `cls` and of the dataclasses inside it; `known` gets all there may be."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found[name] = _nested(cast(type[Any], hint), given, known)
        elif name != "rerankers":
            known.add(name)
            if name in given:
                value = given[name]
                listed = isinstance(value, str) and "tuple" in str(hint)
                found[name] = [each.strip() for each in value.split(",")] if listed else value
    return found
