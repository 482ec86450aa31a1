"""What stands between Ray Serve and a replica's app: the path it was mounted at."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qvl.ray_serve.split import HEADERS


@dataclass(frozen=True, slots=True)
class Mounted:
    """The app behind a route prefix, whose own routes are whole paths.

    HAProxy sends a pool everything from its prefix on. `/v1/rerank` itself is the route of that name; what
    follows, as in `/v1/rerank/score`, is another of the app's routes, which the gateway asks for that way.
    """

    app: ASGIApp
    prefix: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def untagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [each for each in message["headers"] if each[0] != b"x-request-id"]
            await send(message)

        HEADERS.set(scope["headers"])
        scope["root_path"] = ""
        scope["path"] = inner(scope["path"], self.prefix)
        # Ray puts the request's id on the answer itself, the same that it has put into `scope`.
        await self.app(scope, receive, untagged)


def inner(path: str, prefix: str) -> str:
    rest = path.removeprefix(prefix)
    return rest if prefix != "/" and rest != path and len(rest) > 1 and rest.startswith("/") else path
