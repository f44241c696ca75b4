"""A server's models over HTTP: the ASGI application.

Independent of Ray, so the same code runs in a Serve replica, under uvicorn and in a test without a socket.
The paths are in `rest/routes.py`.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from raystack.errors import Problem
from raystack.serving.protocol import RequestError
from raystack.serving.rest.body import DEFAULT, DisconnectedError, Limits, Message, Receive, read
from raystack.serving.rest.infer import LENGTH, Predictions
from raystack.serving.rest.management import Management
from raystack.serving.rest.response import Response, refusal
from raystack.serving.rest.routes import Route, route
from raystack.serving.server import Server

Scope = Message
Send = Callable[[Message], Awaitable[None]]

OPEN = ("live", "server ready", "ready")
"""Actions for everybody: Kubernetes' probes have no token."""

logger = logging.getLogger(__name__)


class Endpoint:
    """ASGI application of a server."""

    def __init__(self, server: Server, limits: Limits = DEFAULT) -> None:
        self._server, self._limits = server, limits
        self._predictions = Predictions(server, limits)
        self._management = Management(server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            guard = self._server.guard
            if guard is not None and not _open(scope):
                guard.check(_authorization(scope))
            status, headers, body = await self._respond(scope, receive)
        except RequestError as refused:
            status, headers, body = refusal(refused)
        except DisconnectedError:
            return
        except Exception:
            status, headers, body = _bug(scope)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        found, path = routed(scope)
        if found is None:
            raise self._nowhere(path)
        method = scope["method"]
        if method not in found.methods:
            allowed = ", ".join(found.methods)
            raise RequestError(
                Problem(path, rule=f"answers {allowed}", got=method[:20]), 405, (("allow", allowed),)
            )
        match found.action:
            case "infer" | "predict":
                return await self._predictions.answer(found, scope["headers"], receive)
            case "shared memory":
                raise RequestError(
                    Problem(path, rule="shared memory is not supported: send tensors in the body")
                )
        if method != "POST":
            return self._management.get(found)
        declared = next((value for name, value in scope["headers"] if name == LENGTH), None)
        return await self._management.post(found, await read(receive, declared, self._limits))

    def _nowhere(self, path: str) -> RequestError:
        models = ", ".join(f"/v2/models/{name}" for name in self._server.names)
        problem = Problem(path[:256] or "/", rule="there is no such path", remedy=f"this server has {models}")
        return RequestError(problem, 404)


def routed(scope: Scope) -> tuple[Route | None, str]:
    """Return the route of a request, and its path as the server sees it."""
    path, raw_path = scope["path"], scope.get("raw_path") or b""
    root = scope.get("root_path")
    if root:
        path = path.removeprefix(root)
        raw_path = raw_path.removeprefix(root.encode())
    return route(path, raw_path), path


def _open(scope: Scope) -> bool:
    """Whether it is a request that needs no token."""
    found, _ = routed(scope)
    return found is not None and found.action in OPEN


def _authorization(scope: Scope) -> str | None:
    found = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    return None if found is None else found.decode("latin-1")


def _bug(scope: Scope) -> Response:
    entry = uuid.uuid4().hex
    logger.exception("%s %s failed, id %s", scope["method"], scope["path"][:256], entry)
    problem = Problem("request", rule="the server failed", remedy=f"its log has more under id {entry}")
    return refusal(RequestError(problem, 500))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message: Any = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
