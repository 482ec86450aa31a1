"""Ray Serve's environment: HAProxy in front of the replicas, always, and proof that it is really there.

Its own proxy is written in Python and passes some 150 requests a second; HAProxy passes thousands, and sends
each body straight to a replica's port. Ray reads these variables when it is imported, in every process.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from qvl.engine.errors import ConfigError
from qvl.engine.port import url
from qvl.ray_serve import haproxy
from qvl.ray_serve.config import DeployConfig

_REQUIRED = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
_BINARY = "qvl-haproxy"
_PROBE_SECONDS, _POLL_SECONDS = 5.0, 0.5
_CHECK_SECONDS = 60.0
"""For HAProxy to hear of the replicas, on a machine that is busy."""
_LONGEST_FOLDER = 26
"""HAProxy takes socket paths of 97 characters, and Ray adds 71: a hash and a name."""


def variables(config: DeployConfig) -> dict[str, str]:
    """For the driver, before it imports Ray, and for Serve's controller, which hands them down."""
    cluster, folder = config.cluster, _folder(config.server.port)
    return {
        **_REQUIRED,
        # A request that reached a replica and died with it is safe to send again: it has no effects.
        # HAProxy can do so while the whole of it fits in its buffer (16 KiB); larger ones are the client's.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # How soon a proxy that was killed is missed; until it is back its node answers nobody.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # A process of an old configuration lives as long as a request may.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(config.server.request_seconds)),
        haproxy.BINARY: str(Path(sys.executable).with_name(_BINARY)),
        haproxy.STATS_HOST: cluster.stats_host,
        haproxy.ORIGINS: " ".join(config.server.cors_origin),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(cluster.stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(cluster.metrics_port),
        # The default is one fixed folder for all users and clusters of a machine.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def of_replica(config: DeployConfig) -> dict[str, str]:
    """A replica's own; those of HAProxy mode it must inherit, or `require` would find what is not so."""
    return {
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": f"{config.cluster.drain_window:g}",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        # Ray would keep a thousand lines back, for hours and from who looks why a replica has ended.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    }


@contextmanager
def private_folder(config: DeployConfig) -> Iterator[None]:
    """HAProxy's admin socket is open to whoever can reach its folder: that folder is this user's."""
    folder = _folder(config.server.port)
    if len(str(folder)) > _LONGEST_FOLDER:
        raise ConfigError(f"{folder} is too long for the Unix sockets in it: choose a shorter TMPDIR")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to another user: choose another --port or TMPDIR")
    folder.chmod(0o700)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require(found: Mapping[str, str]) -> None:
    """In a replica, with what its node and the controller have: refuse to come up behind another proxy.

    A plain HAProxy shows its statistics to everybody and does not know the pools' further routes.
    """
    missing = [f"{key}={value}" for key, value in _REQUIRED.items() if found.get(key) != value]
    if missing:
        raise ConfigError(
            f"HAProxy mode is off: Serve began without {' '.join(missing)}; `serve shutdown`, then deploy "
            "with the controller_options of ray_serve/deploy.yaml"
        )
    if Path(found.get(haproxy.BINARY, "")).name != _BINARY:
        raise ConfigError(
            f"HAProxy on this node is not qvl's: `export {haproxy.BINARY}=$(command -v {_BINARY})` on each "
            "node before Ray starts there, or give its path in the controller_options of "
            "ray_serve/deploy.yaml; `serve shutdown`, then deploy again"
        )


def check(config: DeployConfig, stop: threading.Event) -> bool:
    """On a node with a proxy: wait until HAProxy itself has a replica of each application in use.

    False when told to stop before. Raises ConfigError when it has not in time.
    """
    page = here(config.cluster.stats_host, config.cluster.stats_port) + "/stats;csv"
    deadline = time.monotonic() + _CHECK_SECONDS
    while missing := _missing(page, config):
        if time.monotonic() > deadline:
            raise ConfigError(f"HAProxy is not in front of the replicas ({page}: {missing}); see RUNBOOK.md")
        if stop.wait(_POLL_SECONDS):
            return False
    return True


def _missing(page: str, config: DeployConfig) -> str:
    """What HAProxy's statistics do not show yet; nothing: it passes requests to all that were deployed.

    Ray says that applications run once their replicas do, which may be before its proxy has heard of them.
    """
    try:
        found = httpx.get(page, timeout=_PROBE_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        return f"{type(error).__name__} {error}"
    if found.status_code != 200 or "http_frontend" not in found.text:
        return f"it answers {found.status_code}"
    rows = csv.DictReader(found.text.removeprefix("# ").splitlines())
    up = " ".join(row["svname"] for row in rows if row["status"].startswith("UP"))
    parts = ("both",) if config.cluster.layout == "together" else ("embedder", "reranker", "gateway")
    return ", ".join(f"no replica of qvl-{part} is up" for part in parts if f"-qvl-{part}-" not in up)


def here(host: str, port: int) -> str:
    """The URL, on its own node, of what listens at `host`, which may be every interface."""
    return url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def _folder(port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"qvl-{os.getuid()}-{port}"
