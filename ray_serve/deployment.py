"""A pool of replicas as a Ray Serve application. A replica is one `Engine` behind the app of `qvl serve`.

    load, warm up ─► ready ─► serve ─► drain ─► stop

Ray replaces a replica whose engine has died; HAProxy sends bodies straight to the replica's own port, so
they pass no proxy of Ray's, no object store and no pickle.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import replace
from typing import Any, NoReturn

import ray
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from qvl.engine import about
from qvl.engine.api import create_app
from qvl.engine.api.cors import with_cors
from qvl.engine.api.replica import Managed
from qvl.engine.machine import cores
from qvl.engine.metrics import Metrics
from qvl.engine.port import DIED, leave
from qvl.engine.server import Starter
from qvl.engine.shares import decoding
from qvl.engine.start import start_engine
from qvl.ray_serve import environment
from qvl.ray_serve.card import alone_on_the_card, beside, gpus_of
from qvl.ray_serve.config import PREFIXES, DeployConfig, Pool, Replicas
from qvl.ray_serve.gateway import Gateway
from qvl.ray_serve.ingress import Mounted
from qvl.ray_serve.join import CONTROLLER, NAMESPACE
from qvl.ray_serve.logs import kept, log_with_serve
from qvl.ray_serve.policy import QUEUED, QueuedTokens
from qvl.ray_serve.split import Split

_ONGOING = 4096
"""Above what a replica's own admission lets in: its 429 has our shape and a time, Serve's has neither."""
_MOST_WAITING = 256
"""Requests that each of Serve's handles holds while no replica takes them."""
_HEALTH_PERIOD_SECONDS, _HEALTH_TIMEOUT_SECONDS = 5.0, 15.0
_STOP_SECONDS = 10.0
"""For the engine's processes to end, after the drain."""
_FLUSH_SECONDS = 1.0
_LOOK_BACK_SECONDS = 12.0
"""Just above what Ray takes for the interval of reports; they come more often (environment.py)."""
_GATEWAYS, _GATEWAY_CPUS = 1, 0.1
_SEAL_BYTES = 32
_log = logging.getLogger("qvl.ray")


@serve.ingress()
class EngineReplica:
    """What runs in each actor."""

    def __init__(self, config: DeployConfig, pool: Pool, start: Starter, seal: bytes) -> None:
        """`seal`: of the parts that these replicas send each other (Split)."""
        environment.require(os.environ)
        log_with_serve(config.server)
        server, self._replicas = config.of(pool)
        self._server = replace(server, engine=decoding(server.engine, beside(config.most(pool)), cores()))
        about.tell(self._server)
        self._prefix = PREFIXES[pool]
        self._start, self._seal = start, seal

    async def __serve_build_asgi_app__(self) -> Mounted:
        """Serve calls this before it lets requests in: the time to load the models."""
        most, tokens = self._replicas.max_replicas, self._replicas.split_tokens
        media = self._server.engine.media
        self._replica = Split(Metrics(), await front(), tokens, most, self._seal, media)
        # Its mistakes are told before the models are loaded.
        app = create_app(self._replica, self._server, seal=self._seal)
        with kept():
            async with alone_on_the_card(self._replicas.replica_gpus or 0):
                self._engine = await self._start(self._server.engine, self._replica.metrics)
        self._replica.serve(self._engine)
        self._watch = asyncio.create_task(self._exit_with(self._engine))
        return Mounted(app, self._prefix)

    async def check_health(self) -> None:
        """Raises when this replica should be replaced."""
        health = await self._engine.health()
        if not health.ready:
            raise RuntimeError(health.reason)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {QUEUED: float(self._replica.held)}

    async def __del__(self) -> None:
        """Ray calls this once nothing is in flight, or the drain's time is up."""
        if not hasattr(self, "_watch"):
            return
        self._watch.cancel()
        self._replica.cut("stopping")
        await self._replica.close()
        await self._engine.stop()

    async def _exit_with(self, engine: Managed) -> NoReturn:
        """A replica whose engine has died ends at once, as `qvl serve` does; Ray starts another."""
        reason = await engine.died()
        _log.error("%s; the replica exits", reason)
        self._replica.cut(reason)
        await asyncio.sleep(_FLUSH_SECONDS)
        leave(DIED)


@serve.ingress()
class GatewayReplica:
    """No model and no GPU; a few milliseconds of one core for each question that it passes on."""

    def __init__(self, config: DeployConfig) -> None:
        environment.require(os.environ)
        log_with_serve(config.server)
        self._server = config.server

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        gateway = Gateway(await front())
        return with_cors(gateway, self._server.cors_origin)


async def front() -> str:
    """The URL of all replicas: a proxy runs on every node that has one, so on this one too.

    Serve says at which address: Ray's own commands do not take it from our settings.
    """
    http = await ray.get_actor(CONTROLLER, namespace=NAMESPACE).get_http_config.remote()
    return environment.here(http.host, http.port)


def application(config: DeployConfig, pool: Pool, start: Starter = start_engine) -> Application:
    """One pool."""
    _, replicas = config.of(pool)
    cards = ray.cluster_resources().get("GPU", 0)
    gpus = gpus_of(replicas.replica_gpus, config.server.engine.tensor_parallel, cards)
    return serve.deployment(
        EngineReplica,
        name=f"qvl-{pool}",
        ray_actor_options=_actor(config, replicas.replica_cpus, gpus),
        autoscaling_config=autoscaling(replicas),
        **_bounds(config),
    ).bind(config, pool, start, secrets.token_hex(_SEAL_BYTES).encode())


def gateway(config: DeployConfig) -> Application:
    """What stands at `/` when the pools are separate."""
    return serve.deployment(
        GatewayReplica,
        name="qvl-gateway",
        ray_actor_options=_actor(config, _GATEWAY_CPUS, 0),
        num_replicas=_GATEWAYS,
        **_bounds(config),
    ).bind(config)


def _bounds(config: DeployConfig) -> dict[str, Any]:
    """Ray's defaults would queue without bound, run 5 requests at once and cut off a drain after 20 s."""
    return {
        "max_ongoing_requests": _ONGOING,
        "max_queued_requests": _MOST_WAITING,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "health_check_period_s": _HEALTH_PERIOD_SECONDS,
        "health_check_timeout_s": _HEALTH_TIMEOUT_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": (
            config.cluster.drain_window + config.server.request_seconds + _STOP_SECONDS
        ),
        "logging_config": {
            "enable_access_log": False,
            "encoding": "JSON" if config.server.log_format == "json" else "TEXT",
        },
    }


def _actor(config: DeployConfig, cpus: float, gpus: float) -> dict[str, Any]:
    variables = {"env_vars": environment.of_replica(config)}
    return {"num_cpus": cpus, "num_gpus": gpus, "runtime_env": variables}


def autoscaling(replicas: Replicas) -> dict[str, Any]:
    """Ray's own settings around the policy."""
    return {
        "min_replicas": replicas.min_replicas,
        "max_replicas": replicas.max_replicas,
        "upscale_delay_s": replicas.upscale_seconds,
        "downscale_delay_s": replicas.downscale_seconds,
        "look_back_period_s": _LOOK_BACK_SECONDS,
        "policy": {
            "policy_function": f"{QueuedTokens.__module__}:{QueuedTokens.__name__}",
            "policy_kwargs": {"replica_tokens": replicas.replica_tokens},
        },
    }
