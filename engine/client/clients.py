"""The two clients: `calls` says what to send, `retry` when to try again; here is how each one waits."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from qvl.engine.client import calls
from qvl.engine.client.calls import Call
from qvl.engine.client.retry import Attempts, Policy
from qvl.engine.client.wire import Part, Reply, renumbered
from qvl.engine.errors import BadRequest

P = ParamSpec("P")
T = TypeVar("T")

LOCAL = "http://127.0.0.1:8080"


def _blocking(verb: Callable[Concatenate[Policy, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(verb)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(verb(self.policy, *args, **kwargs))

    return method


def _awaiting(
    verb: Callable[Concatenate[Policy, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(verb)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(verb(self.policy, *args, **kwargs))

    return method


class Client:
    """Blocking; the parts of a long list go one after the other."""

    embed = _blocking(calls.embed)
    embed_result = _blocking(calls.embed_result)
    rerank = _blocking(calls.rerank)
    rerank_result = _blocking(calls.rerank_result)
    search = _blocking(calls.search)
    search_reply = _blocking(calls.search_reply)
    models = _blocking(calls.models)
    post = _blocking(calls.post)

    def __init__(
        self,
        url: str = LOCAL,
        *,
        key: str | None = None,
        policy: Policy | None = None,
        ca: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`url`: also `host:port`, or what OpenAI's client is given (`…/v1`). `ca`: PEM file of the authority
        that signed the server's certificate (default: SSL_CERT_FILE, or the usual ones)."""
        self.policy = policy or Policy()
        self._http = httpx.Client(
            headers=_headers(key),
            transport=transport,
            **_at(url, ca),
        )

    def ready(self) -> bool:
        """Whether the server takes requests now; False too when it cannot be reached."""
        try:
            return self._http.get("/health/ready", timeout=self.policy.connect).is_success
        except httpx.TransportError:
            return False

    def run(self, call: Call[T]) -> T:
        return call.finish([self._send(part) for part in call.parts])

    def _send(self, part: Part) -> Reply:
        attempts = Attempts(self.policy)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(
                    *part.line,
                    content=part.body,
                    headers=part.headers(attempts.failures),
                    timeout=attempts.timeout(),
                )
            except httpx.TransportError as error:
                outcome = error
            with renumbered(part):
                pause = attempts.after(outcome)
            if isinstance(outcome, httpx.Response) and pause is None:
                return part.reply(outcome.content)
            time.sleep(pause or 0.0)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncClient:
    """The same methods as coroutines; at most `policy.concurrency` requests are under way at once."""

    embed = _awaiting(calls.embed)
    embed_result = _awaiting(calls.embed_result)
    rerank = _awaiting(calls.rerank)
    rerank_result = _awaiting(calls.rerank_result)
    search = _awaiting(calls.search)
    search_reply = _awaiting(calls.search_reply)
    models = _awaiting(calls.models)
    post = _awaiting(calls.post)

    def __init__(
        self,
        url: str = LOCAL,
        *,
        key: str | None = None,
        policy: Policy | None = None,
        ca: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url`: also `host:port`, or what OpenAI's client is given (`…/v1`). `ca`: PEM file of the authority
        that signed the server's certificate (default: SSL_CERT_FILE, or the usual ones)."""
        self.policy = policy or Policy()
        self._gate = asyncio.Semaphore(self.policy.concurrency)
        # httpx's own limit of 100 connections would queue requests against their deadline.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.policy.concurrency)
        self._http = httpx.AsyncClient(
            headers=_headers(key),
            transport=transport,
            limits=limits,
            **_at(url, ca),
        )

    async def ready(self) -> bool:
        """Whether the server takes requests now; False too when it cannot be reached."""
        try:
            return (await self._http.get("/health/ready", timeout=self.policy.connect)).is_success
        except httpx.TransportError:
            return False

    async def run(self, call: Call[T]) -> T:
        """Parts go side by side; each body is only built, in a thread, once there is room to send it."""
        tasks: list[asyncio.Task[Reply]] = []
        try:
            async with asyncio.TaskGroup() as group:
                while (part := await self._next(call)) is not None:
                    tasks.append(group.create_task(self._send(part)))
                    # A callback, because a task cancelled before its first step runs no `finally`.
                    tasks[-1].add_done_callback(lambda _: self._gate.release())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return call.finish([task.result() for task in tasks])

    async def _next(self, call: Call[Any]) -> Part | None:
        """The next part with a place in the gate, or None without one."""
        await self._gate.acquire()
        part = None
        try:
            part = await asyncio.to_thread(next, call.parts, None)
        finally:
            if part is None:
                self._gate.release()
        return part

    async def _send(self, part: Part) -> Reply:
        attempts = Attempts(self.policy)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(
                    *part.line,
                    content=part.body,
                    headers=part.headers(attempts.failures),
                    timeout=attempts.timeout(),
                )
            except httpx.TransportError as error:
                outcome = error
            with renumbered(part):
                pause = attempts.after(outcome)
            if isinstance(outcome, httpx.Response) and pause is None:
                return part.reply(outcome.content)
            await asyncio.sleep(pause or 0.0)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def _headers(key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    return headers | ({"authorization": f"Bearer {key}"} if key else {})


def _at(url: str, ca: str | None) -> dict[str, Any]:
    """How httpx reaches the server. Raises BadRequest for what is no address of one."""
    server = address(url)
    ca = ca or os.environ.get("SSL_CERT_FILE")
    return {
        "base_url": server,
        "verify": ssl.create_default_context(cafile=ca) if ca and server.scheme == "https" else True,
        # HTTP_PROXY and its kin, which this obeys, could only lead away from this machine.
        "trust_env": not (server.host in {"localhost", "::1"} or server.host.startswith("127.")),
    }


def address(url: str) -> httpx.URL:
    """Of the server that `url` means."""
    try:
        found = httpx.URL(url if "://" in url else f"http://{url}")
    except httpx.InvalidURL as error:
        raise BadRequest(f"{url!r} is not a URL: {error}", code="invalid_url") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise BadRequest(f"{url!r} is no server's address, such as {LOCAL}", code="invalid_url")
    return found.copy_with(path=found.path.rstrip("/").removesuffix("/v1") or "/")
