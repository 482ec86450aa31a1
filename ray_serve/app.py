"""What `serve run` and `serve deploy` import: builders from flat settings, named as `qvl serve`'s options.

    serve run qvl.ray_serve.app:build embedder=MODEL reranker=MODEL min_replicas=2 ray_address=auto

Separate pools are three applications, as in deploy.yaml: `embedders`, `rerankers` and `front`.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve import Application

from qvl.ray_serve import deployment
from qvl.ray_serve.config import load
from qvl.ray_serve.join import NAMESPACE
from qvl.ray_serve.run import listen


def build(settings: dict[str, Any]) -> Application:
    """Both models in each replica; at `/`."""
    config = load(settings)
    if not ray.is_initialized():
        # This is `serve run` itself, which would start Serve at 0.0.0.0:8000, without what HAProxy needs.
        ray.init(config.cluster.ray_address, namespace=NAMESPACE)
        listen(config)
    return deployment.application(config, "both")


def embedders(settings: dict[str, Any]) -> Application:
    """Replicas of the embedder; at `/v1/embeddings`."""
    return deployment.application(load(settings), "embedder")


def rerankers(settings: dict[str, Any]) -> Application:
    """Replicas of the reranker; at `/v1/rerank`."""
    return deployment.application(load(settings), "reranker")


def front(settings: dict[str, Any]) -> Application:
    """Every route that is not one pool's; at `/`."""
    return deployment.gateway(load(settings))
