"""A response's head and the first part of its body, written to the connection at once.

uvicorn writes one after the other. A replica that is killed in between leaves HAProxy with a head that it has
passed on: the request cannot go to another replica any more, and its client gets no body.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from raystack.serving.rest.body import Message

Send = Callable[[Message], Awaitable[None]]


class Together:
    """ASGI `send` that holds the head back until the body begins. Behind another server than uvicorn they are
    passed on as two messages.
    """

    __slots__ = ("_head", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
        elif self._head is None:
            await self._send(message)
        else:
            head, self._head = self._head, None
            await self._both(head, message)

    async def _both(self, head: Message, body: Message) -> None:
        request: Any = getattr(self._send, "__self__", None)
        transport = getattr(request, "transport", None)
        if transport is None:
            await self._send(head)
            await self._send(body)
            return
        request.transport = held = _Held(transport)
        try:
            await self._send(head)
            await self._send(body)
        finally:
            request.transport = transport
            held.flush()


class _Held:
    """A transport that writes when it is flushed or closed."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> None:
        self._parts.append(part)

    def flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.writelines(parts)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
