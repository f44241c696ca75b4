"""The protocol's REST routes as an ASGI application for one model.

Independent of Ray, so the same code runs in a Serve replica, under uvicorn and in a test without a socket.

    GET  /v2                                      server metadata
    GET  /v2/health/live  /v2/health/ready
    GET  /v2/models/{name}[/versions/{v}]         model metadata, from the signature
    GET  /v2/models/{name}[/versions/{v}]/ready
    POST /v2/models/{name}[/versions/{v}]/infer
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic_core import to_json

from raystack import __version__
from raystack.errors import Problem, RaystackError
from raystack.serving.batcher import Batcher
from raystack.serving.protocol import Contract, RequestError, rest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Response = tuple[int, bytes, list[tuple[bytes, bytes]]]

_JSON_TYPE = [(b"content-type", rest.JSON.encode())]

logger = logging.getLogger(__name__)


class Endpoint:
    """ASGI application of one model. `max_ongoing` infer requests run at a time, `max_queued` more wait."""

    def __init__(self, contract: Contract, batcher: Batcher, max_ongoing: int, max_queued: int) -> None:
        self._contract, self._batcher = contract, batcher
        self._max_ongoing, self._max_queued = max_ongoing, max_queued
        self._slots = asyncio.Semaphore(max_ongoing)
        self._inside = 0
        self._metadata = to_json(contract.metadata())
        self._infer_path = f"/v2/models/{contract.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, body, headers = await self._respond(scope, receive)
        except RequestError as refused:
            status, body, headers = refused.status, rest.error_body(str(refused)), _JSON_TYPE
        except RaystackError as error:
            status, body, headers = 500, rest.error_body(str(error)), _JSON_TYPE
        except Exception:
            logger.exception("%s %s", scope["method"], scope["path"])
            status, body, headers = (
                500,
                rest.error_body("the server failed; its log has the reason"),
                _JSON_TYPE,
            )
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        route = "infer" if path == self._infer_path else self._route(path)
        allowed = "POST" if route == "infer" else "GET"
        if scope["method"] != allowed:
            raise RequestError(Problem(path, rule=f"answers {allowed}", got=scope["method"]), 405)
        match route:
            case "infer":
                return await self._admitted(scope, receive)
            case "server":
                return _json(
                    {"name": "raystack", "version": __version__, "extensions": list(rest.EXTENSIONS)}
                )
            case "live":
                return _json({"live": True})
            case "server ready":
                return _json({"ready": True})
            case "ready":
                return _json({"name": self._contract.name, "ready": True})
            case _:
                return 200, self._metadata, _JSON_TYPE

    def _route(self, path: str) -> str:
        """Return the route of a path. Raise RequestError (404) if there is none."""
        match path.split("/"):
            case ["", "v2"]:
                return "server"
            case ["", "v2", "health", "live"]:
                return "live"
            case ["", "v2", "health", "ready"]:
                return "server ready"
            case ["", "v2", "models", name, "versions", version]:
                return self._known(name, version, "metadata")
            case ["", "v2", "models", name, "versions", version, "ready" | "infer" as route]:
                return self._known(name, version, str(route))
            case ["", "v2", "models", name]:
                return self._known(name, None, "metadata")
            case ["", "v2", "models", name, "ready" | "infer" as route]:
                return self._known(name, None, str(route))
        raise RequestError(
            Problem(
                path or "/",
                rule="there is no such path",
                remedy=f"this server has /v2/models/{self._contract.name}",
            ),
            404,
        )

    def _known(self, name: str, version: str | None, route: str) -> str:
        ours = self._contract
        if name != ours.name:
            raise RequestError(Problem(f"model '{name}'", rule=f"this server has '{ours.name}'"), 404)
        if version is not None and version != ours.version:
            raise RequestError(
                Problem(
                    f"model '{name}', version '{version}'", rule=f"this server has version '{ours.version}'"
                ),
                404,
            )
        return route

    async def _admitted(self, scope: Scope, receive: Receive) -> Response:
        if self._inside >= self._max_ongoing + self._max_queued:
            rule = (
                f"{self._max_ongoing} requests are worked on and {self._max_queued} wait, which is all that"
                " this server takes"
            )
            raise RequestError(Problem("queue", rule=rule, remedy="try again later"), 503)
        self._inside += 1
        try:
            async with self._slots:
                return await self._infer(scope, receive)
        finally:
            self._inside -= 1

    async def _infer(self, scope: Scope, receive: Receive) -> Response:
        headers = dict(scope["headers"])
        if (encoding := headers.get(b"content-encoding", b"identity")) != b"identity":
            raise RequestError(
                Problem(
                    "Content-Encoding",
                    rule="is not supported: send the body as it is",
                    got=encoding.decode("latin-1"),
                )
            )
        length = headers.get(rest.HEADER_LENGTH.lower().encode())
        request = rest.parse(
            await _body(receive), None if length is None else length.decode("latin-1"), self._contract
        )
        outputs = await self._batcher.predict(request.inputs, request.batch)
        body, json_length = rest.render(request, outputs, self._contract)
        if json_length is None:
            return 200, body, _JSON_TYPE
        binary = [
            (b"content-type", rest.BINARY.encode()),
            (rest.HEADER_LENGTH.lower().encode(), str(json_length).encode()),
        ]
        return 200, body, binary


def _json(values: dict[str, Any]) -> Response:
    return 200, to_json(values), _JSON_TYPE


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
