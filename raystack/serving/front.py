"""Requests over HTTP to a replica, answered beneath Serve's request path.

Behind HAProxy each replica has an HTTP server of Serve's own. Serve puts a task, a watcher, an id and metrics
around each request there, which costs more than a small model. It also puts middlewares around that server,
those that the function named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH returns: here it is `middlewares`.
The protocol's paths are answered by the replica's endpoint, and all others, as `/-/healthz`, by Serve. What
is answered here is still the server's: it ends when its requests have ended.

Serve calls the function in every process that has an HTTP server. In one without a model, and where a replica
runs its code on another event loop than its server, everything goes Serve's way.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple

from starlette.middleware import Middleware

from raystack.ray_internals.haproxy import LOOPBACK
from raystack.serving.rest.body import Message, Receive
from raystack.serving.writing import Send, Together

Application = Callable[[Message, Receive, Send], Awaitable[None]]

PATHS = ("/v1", "/v2")


class _Here(NamedTuple):
    """What this process, a replica, answers with."""

    application: Application
    loop: asyncio.AbstractEventLoop


_here: list[_Here] = []
"""Empty in a process without models."""


def answer_here(application: Application) -> None:
    """Answer requests to this process with an ASGI application, on the event loop that runs."""
    _here[:] = [_Here(application, asyncio.get_running_loop())]


def middlewares() -> list[Middleware]:
    """Return the middlewares of an HTTP server of this process, which is about to start on this loop."""
    if os.environ.get(LOOPBACK):
        from raystack.ray_internals import serve as internals  # Ray Serve, which a test does without

        internals.grpc_on_loopback()
    if _here and _here[0].loop is asyncio.get_running_loop():
        return [Middleware(Front, own=_here[0].application)]
    return []


class Front:
    """ASGI application: `own` for the protocol's paths, `serve` for the others."""

    mounted: ClassVar[bool] = False
    """Whether this process has one, so that Serve does not see its requests over HTTP."""

    def __init__(self, serve: Application, own: Application) -> None:
        self._serve, self._own = serve, own
        Front.mounted = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _path(scope).startswith(PATHS):
            await self._own(scope, receive, Together(send))
        else:
            await self._serve(scope, receive, send)


class Whole:
    """ASGI application: `own`, for a request whose path Serve has divided at the application's route."""

    def __init__(self, own: Application, route: str) -> None:
        self._own, self._route = own, route

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        await self._own({**scope, "root_path": root.removesuffix(self._route)}, receive, send)


def _path(scope: Message) -> str:
    path: str = scope["path"]
    root = scope.get("root_path")
    return path.removeprefix(root) if root else path
