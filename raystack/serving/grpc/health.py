"""gRPC's own health service: the server and its services are healthy while all models answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from raystack.errors import Problem
from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.grpc.rpc import Caller
from raystack.serving.grpc.servicer import SERVICE as INFERENCE
from raystack.serving.protocol import RequestError
from raystack.serving.server import Server

SERVICE = "grpc.health.v1.Health"
POLL_S = 0.5
"""Seconds between two looks at the server for a client that watches."""

_SERVICES = ("", INFERENCE, SERVICE)
"""Services with a status; the empty name is the server's."""
_Response, _List = (message_class(f"grpc.health.v1.Health{name}Response") for name in ("Check", "List"))


class Health:
    """The service's RPCs."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def Check(self, request: Message, caller: Caller) -> Message:
        """Answer the status of a service. Raises RequestError (404) if there is none."""
        if request.service not in _SERVICES:
            rule = f"this server has {', '.join(_SERVICES[1:])}"
            raise RequestError(Problem(f"service '{request.service[:80]}'", rule=rule), 404)
        return self._status()

    async def List(self, request: Message, caller: Caller) -> Message:
        """Answer the status of all services."""
        return _List(statuses=dict.fromkeys(_SERVICES, self._status()))

    async def Watch(self, request: Message, caller: Caller) -> AsyncGenerator[Message, None]:
        """Answer the status of a service now and whenever it changes."""
        told = None
        while True:
            status = self._status() if request.service in _SERVICES else _Response(status="SERVICE_UNKNOWN")
            if status != told:
                yield status
                told = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._server.closing.wait(), POLL_S)
                raise RequestError(Problem("server", rule="is closing; watch another"), 503)

    def _status(self) -> Message:
        return _Response(status="SERVING" if self._server.ready else "NOT_SERVING")
