"""What answers for a server of several models over HTTP: the ASGI application."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from raystack.serving.endpoint import Endpoint, Scope, Send, routed
from raystack.serving.protocol import RequestError
from raystack.serving.rest.body import Limits, Receive, read
from raystack.serving.rest.infer import LENGTH
from raystack.serving.rest.response import Response, answer
from raystack.serving.server import Server
from raystack.serving.several.pool import Pool
from raystack.serving.several.relay import HttpAsk
from raystack.serving.several.remote import Remote

GATHER_S = 10.0
"""Seconds in which a model has to tell of its versions."""


LOADED = ("infer", "predict", "metadata", "config")
"""What only a model that is loaded can answer."""


class Gateway(Endpoint):
    """Endpoint of a server whose models are served elsewhere, or share this process."""

    def __init__(self, server: Server, remote: Remote, pool: Pool, limits: Limits) -> None:
        super().__init__(server, limits)
        self._remote, self._pool = remote, pool

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        found, _ = routed(scope)
        if found is not None and scope["method"] in found.methods:
            if found.model in self._server.elsewhere:
                ask = HttpAsk(scope["method"], _raw_path(scope), list(scope["headers"]), b"")
                return await self._remote.http(
                    found.model, ask._replace(body=await self._body(scope, receive))
                )
            if not found.model and found.action in ("index", "stats"):
                return await self._gathered(scope, receive, found.action)
            if found.action in LOADED:
                async with self._pool.use(found.model):
                    return await super()._respond(scope, receive)
        return await super()._respond(scope, receive)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        declared = next((value for name, value in scope["headers"] if name == LENGTH), None)
        return await read(receive, declared, self._limits)

    async def _gathered(self, scope: Scope, receive: Receive, action: str) -> Response:
        """Answer with what this process knows, and what those of the other models do."""
        body = await self._body(scope, receive)
        once = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(once)

        own = json.loads((await super()._respond(scope, again)).body)
        ask = HttpAsk(scope["method"], _raw_path(scope), list(scope["headers"]), body)
        if action == "stats":
            others = [row async for rows in self._each(ask) for row in rows["model_stats"]]
            return answer({"model_stats": own["model_stats"] + others})
        return answer(own + [row async for rows in self._each(ask) for row in rows])

    async def _each(self, ask: HttpAsk) -> AsyncIterator[Any]:
        awake = [name for name, model in self._server.elsewhere.items() if model.awake]
        for response in await asyncio.gather(*(self._one(name, ask) for name in awake)):
            if response is not None and response.status == 200:
                yield json.loads(response.body)

    async def _one(self, name: str, ask: HttpAsk) -> Response | None:
        try:
            async with asyncio.timeout(GATHER_S):
                return await self._remote.http(name, ask)
        except (TimeoutError, RequestError):
            return None


class Latest:
    """ASGI application: the gateway of the settings that hold now."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gateway(scope, receive, send)


def _raw_path(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.removeprefix(scope.get("root_path", "").encode())
