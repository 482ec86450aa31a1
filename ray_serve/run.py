"""`qvl serve --ray`: start or join a cluster, deploy, say when it is ready, and take it down again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from qvl.engine import checkpoint
from qvl.engine.api.auth import load_keys
from qvl.engine.errors import ConfigError
from qvl.engine.port import DIED, STOPPED, bind, leave, url
from qvl.engine.server import Starter
from qvl.engine.start import start_engine
from qvl.ray_serve import environment
from qvl.ray_serve.card import cards_for, gpus_of
from qvl.ray_serve.config import PREFIXES, DeployConfig, Pool
from qvl.ray_serve.join import CONTROLLER, NAMESPACE, address_of, join
from qvl.ray_serve.rollout import Progress, why
from qvl.ray_serve.watch import watched

NAME = "qvl"
NAMES = {NAME, *(f"{NAME}-{part}" for part in ("embedder", "reranker", "gateway"))}
"""What is deployed here: other applications of a cluster that was joined are not ours to delete."""

_POLL_SECONDS = 1.0
_SHUTDOWN_SECONDS = 45.0


def serve(config: DeployConfig, start: Starter = start_engine) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. ConfigError when it cannot start; NotStarted: it may yet.

    When Ray itself is lost it does not return: the process ends, with `DIED`.
    """
    address = address_of(config.cluster.ray_address)
    _check(config, here=address is None and start is start_engine)
    with environment.private_folder(config):
        os.environ.update(environment.variables(config))
        join(address, namespace=NAMESPACE, log_to_driver=config.server.log_level == "debug")
        _check_room(config, ours=address is None)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        lost = ""
        try:
            if _deploy(config, start, stop) and environment.check(config, stop):
                _announce(config)
                lost = watched(NAMES, stop)
        finally:
            if not lost:
                _take_down(ours=address is None)
        if lost:
            sys.stderr.write(f"qvl: {lost}; exiting\n")
            # What there is of a cluster of its own ends with this process; the proxies of one that was joined
            # may live on, and need the folder.
            leave(DIED)
    return STOPPED


def _check(config: DeployConfig, *, here: bool) -> None:
    """What replicas would only find out one by one, minutes later. `here`: they have this machine's files."""
    if config.cluster.layout == "separate":
        config.require_both()
        config.of("embedder")  # it refuses what a pool cannot have
    if config.server.port == 0:
        raise ConfigError("--ray needs a --port: every node's proxy has the same")
    stats = config.cluster.stats_host
    for host, port in (
        (config.server.host, config.server.port),
        (stats, config.cluster.stats_port),
        (stats, config.cluster.metrics_port),
    ):
        bind(host, port).close()
    if here:
        load_keys(config.server)
        checkpoint.find(config.server.engine)


def _check_room(config: DeployConfig, *, ours: bool) -> None:
    """A cluster that was joined may bring more GPUs; one of our own would be waited for for ever."""
    import ray

    if not (short := lacking(config, ray.cluster_resources().get("GPU", 0))):
        return
    if ours:
        ray.shutdown()
        raise ConfigError(short)
    sys.stderr.write(f"qvl: {short}; waiting for more\n")


def lacking(config: DeployConfig, cards: float) -> str:
    """What the first replicas want of a cluster with so many GPUs, where that is more; else nothing."""
    parts: list[float] = []
    pools: tuple[Pool, ...] = ("both",) if config.cluster.layout == "together" else ("embedder", "reranker")
    for pool in pools:
        server, replicas = config.of(pool)
        gpus = gpus_of(replicas.replica_gpus, server.engine.tensor_parallel, cards)
        parts += [gpus] * (replicas.min_replicas or 1)
    if (wanted := cards_for(parts)) <= cards:
        return ""
    return (
        f"the replicas take {wanted} GPUs and there are {cards:g}: give fewer --replicas, or a smaller "
        "--replica-gpus (0.5 puts two on a card)"
    )


def listen(config: DeployConfig) -> None:
    """Start Serve in the cluster that was joined; one that runs there keeps its address and its settings."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    variables = {"env_vars": environment.variables(config)}
    server = config.server
    idle_seconds = server.keep_alive_seconds
    http = HTTPOptions(host=server.host, port=server.port, keep_alive_timeout_s=idle_seconds)
    serve.start(proxy_location="EveryNode", http_options=http, controller_options={"runtime_env": variables})


def _deploy(config: DeployConfig, start: Starter, stop: threading.Event) -> bool:
    """Whether every application runs; False when told to stop before."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    listen(config)
    targets = _targets(config, start)
    serve.run_many(targets, wait_for_applications_running=False)
    progress = Progress()
    while not stop.wait(_POLL_SECONDS):
        found = serve.status().applications
        mine = [found[target.name] for target in targets if target.name in found]
        if any(each.status == ApplicationStatus.DEPLOY_FAILED for each in mine):
            raise why(mine)
        progress.tell(mine)
        if len(mine) == len(targets) and all(each.status == ApplicationStatus.RUNNING for each in mine):
            return True
    return False


def _targets(config: DeployConfig, start: Starter) -> list[Any]:
    from ray.serve.api import RunTarget

    from qvl.ray_serve import deployment

    if config.cluster.layout == "together":
        pools = [RunTarget(deployment.application(config, "both", start), NAME, "/")]
    else:
        pools = [
            RunTarget(deployment.application(config, pool, start), f"{NAME}-{pool}", PREFIXES[pool])
            for pool in ("embedder", "reranker")
        ]
        pools.append(RunTarget(deployment.gateway(config), f"{NAME}-gateway", "/"))
    return pools


def _announce(config: DeployConfig) -> None:
    where = url(config.server.host, config.server.port)
    sys.stdout.write(f"qvl is ready on {where} (Ray Serve, {config.cluster.layout})\n")
    sys.stdout.flush()


def _take_down(ours: bool) -> None:
    """Drain and remove what was deployed; a cluster of our own goes too. Bounded, whatever hangs."""
    import ray

    work = threading.Thread(target=_remove, args=(ours,), daemon=True)
    work.start()
    work.join(_SHUTDOWN_SECONDS)
    if work.is_alive():
        sys.stderr.write(
            f"qvl: Ray Serve did not stop within {_SHUTDOWN_SECONDS:g} s; it is ended as it is\n"
        )
    ray.shutdown()


def _remove(ours: bool) -> None:
    import ray
    from ray import serve

    mine = NAMES & serve.status().applications.keys()
    for name in mine:  # all at once: a long drain of the first would leave the others in a cluster that stays
        serve.delete(name, _blocking=False)
    while mine & serve.status().applications.keys():
        time.sleep(_POLL_SECONDS / 4)
    if not ours:
        return
    # It returns 30 s late: Ray retries the call that ended the controller. That actor's end is the end.
    threading.Thread(target=serve.shutdown, daemon=True).start()
    with suppress(ValueError):
        while ray.get_actor(CONTROLLER, namespace=NAMESPACE):
            time.sleep(_POLL_SECONDS / 4)
